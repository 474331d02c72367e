"""A dataset prepared and a bank written by an earlier version still train; a bank of this version grows beside it.

made_at_bdad173.zip is by the commit of that name:
`difftumor convert phantom -d 601 --name Kept --cases 2 --tumor-cases 1 --seed 5 --spacing 8 6 6`,
`difftumor prepare -d 601 --spacing 8 6 6 --patch-size 16 32 32`, `difftumor synthesize --bank -d 601 --per-case 2`.
"""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from trainer_of import trainer_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.lesion_bank import make_bank
from nnunet_difftumor.trainers.tiny import (
    nnUNetTrainerDiffTumorLabelFreeTiny,
    nnUNetTrainerDiffTumorTiny,
)

ARCHIVE = Path(__file__).with_name("made_at_bdad173.zip")


@pytest.fixture
def dataset(nnunet_folders, monkeypatch) -> Path:
    """The preprocessed dataset in nnUNet_preprocessed."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(nnunet_folders / "preprocessed")
    folder = nnunet_folders / "preprocessed" / "Dataset601_Kept"
    # Unpacking makes all files new: statistics must not look older than what they were measured from.
    for path in (folder / "difftumor_statistics").rglob("*"):
        path.touch()
    yield folder
    shutil.rmtree(folder)


def samples(folder: Path, trainer_class: type) -> list[dict]:
    training, _ = trainer_of(folder, trainer_class).get_dataloaders()
    return [sample for _ in range(12) for sample in next(training)["samples"]]


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerDiffTumorTiny, nnUNetTrainerDiffTumorLabelFreeTiny])
def test_a_dataset_prepared_before_trains(dataset, trainer_class):
    made = samples(dataset, trainer_class)
    # Voxels are so large that an early tumor can be between them.
    assert len(made) > 6 and np.mean([sample["in_target"] for sample in made]) >= 0.75
    assert {sample["source"] for sample in made} == {"handcrafted"}


def test_a_bank_written_before_is_trained_on_and_lesions_are_added_to_another(dataset, tmp_path):
    bank = dataset / "difftumor_bank" / "nnUNetPlansDiffTumor_3d_fullres"
    before = {path: path.read_bytes() for path in bank.rglob("*.*")}
    with pytest.raises(InputError, match=r"the bank does not begin: .* by an older version.*difftumor prepare -d 601"):
        make_bank(601, per_case=3, report=lambda line: None)
    settings = json.loads((dataset / "difftumor.json").read_text())
    (dataset / "difftumor.json").write_text(json.dumps({**settings, "on_wrong_data": "warn"}))
    # Another version draws other lesions from the same seed.
    with pytest.raises(InputError, match=r"version"):
        make_bank(601, per_case=3, report=lambda line: None)
    report = make_bank(601, per_case=1, output=tmp_path / "bank", report=lambda line: None)
    assert (report.made, report.refused) == (2, 0)
    assert {path: path.read_bytes() for path in before} == before
    settings |= {"source": "bank", "bank_folder": str(bank)}
    (dataset / "difftumor.json").write_text(json.dumps(settings))
    made = samples(dataset, nnUNetTrainerDiffTumorTiny)
    assert len(made) > 6 and not [reason for sample in made for reason in sample["refused"]]
    assert np.mean([sample["in_target"] for sample in made]) >= 0.9
    assert {sample["source"] for sample in made} == {"bank"}
