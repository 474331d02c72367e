"""Which configurations can be trained with synthetic tumors, and what the others are told."""

import shutil

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.roles import Roles

BASES = Roles((), (), ("phantom_000", "phantom_001"))


def synthesis_of(folder, configuration: str) -> TrainingSynthesis:
    """With plans that have every configuration that nnU-Net's planners make for large images."""
    plans = load_json(str(folder / "nnUNetPlansDiffTumor.json"))
    full = plans["configurations"]["3d_fullres"]
    plans["configurations"] |= {
        "2d": {**full, "patch_size": [32, 32], "spacing": [3.0, 3.0]},
        "3d_lowres": {**full, "data_identifier": "nnUNetPlansDiffTumor_3d_lowres"},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "3d_fullres_one_sample": {"inherits_from": "3d_fullres", "batch_size": 1},
    }
    dataset_json = load_json(str(folder / "dataset.json"))
    return TrainingSynthesis(folder, plans, dataset_json=dataset_json, configuration=configuration, fold=0)


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [("2d", "need a 3D configuration"), ("3d_cascade_fullres", "second stage"), ("3d_lowres", "_3d_lowres: not found")],
)
def test_only_what_prepare_prepares_is_recommended(prepared_phantom, configuration, reason):
    with pytest.raises(InputError, match=f"{reason}.*train 3d_fullres$"):
        synthesis_of(prepared_phantom.preprocessed, configuration)


def test_a_configuration_that_was_preprocessed_but_not_measured_is_refused(prepared_phantom, copy_of_prepared_phantom):
    shutil.copytree(
        copy_of_prepared_phantom / "nnUNetPlansDiffTumor_3d_fullres",
        copy_of_prepared_phantom / "nnUNetPlansDiffTumor_3d_lowres",
    )
    synthesis = synthesis_of(copy_of_prepared_phantom, "3d_lowres")
    with pytest.raises(InputError, match="not 3d_fullres, which alone is measured"):
        synthesis.with_usable_bases(BASES)


def test_a_configuration_with_the_same_cases_is_trained(prepared_phantom):
    synthesis = synthesis_of(prepared_phantom.preprocessed, "3d_fullres_one_sample")
    assert synthesis.with_usable_bases(BASES) == BASES
