"""`difftumor prepare`: what it writes, what it keeps when it runs again, and what it refuses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.preparation.preprocessing.plans import _set_patch_size
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics


def prepare(*arguments: str) -> int:
    return main(["prepare", "-d", "501", "-np", "1", *arguments])


SAME_REQUEST = ("--spacing", "4", "3", "3", "--patch-size", "32", "32", "32")


def test_plans_have_the_window_the_request_and_a_network_that_fits(prepared_phantom):
    plans = load_json(str(prepared_phantom.preprocessed / "nnUNetPlansDiffTumor.json"))
    statistics = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (statistics["percentile_00_5"], statistics["percentile_99_5"]) == (-175, 250)
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["spacing"] == [4, 3, 3] and configuration["patch_size"] == [32, 32, 32]
    assert configuration["data_identifier"] == "nnUNetPlansDiffTumor_3d_fullres"
    strides = np.prod(configuration["architecture"]["arch_kwargs"]["strides"], axis=0)
    assert (np.array(configuration["patch_size"]) % strides == 0).all()


def test_preprocessed_intensities_reach_the_window(prepared_phantom):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    from nnunet_difftumor.prepared.intensity import CTIntensity

    plans = load_json(str(prepared_phantom.preprocessed / "nnUNetPlansDiffTumor.json"))
    data, *_ = nnUNetDatasetBlosc2(str(prepared_phantom.preprocessed / "nnUNetPlansDiffTumor_3d_fullres")).load_case(
        "phantom_000"
    )
    hu = CTIntensity.from_plans(plans, "3d_fullres").to_hu(data[:])
    # Resampling (cubic) may overshoot a little; without the window the range would be that of the organs.
    assert -180 < hu.min() < -170 and 245 < hu.max() < 255


def test_roles_and_settings_are_found_from_the_data(prepared_phantom):
    config = DiffTumorConfig.load(prepared_phantom.preprocessed / "difftumor.json")
    assert [organ.name for organ in config.organs] == ["liver", "kidney", "pancreas"]
    split = load_json(str(prepared_phantom.preprocessed / "splits_final.json"))[0]
    assert split["synthesis_bases"] == [f"phantom_{i:03d}" for i in range(4)]
    assert {*split["train"], *split["val"]} == {"phantom_tumor_000", "phantom_tumor_001"}


def test_validation_cases_carry_the_tumors_of_their_specs(prepared_phantom):
    import nibabel as nib

    folder = prepared_phantom.preprocessed / "difftumor_validation"
    specs = sorted((folder / "specs").glob("*.json"))
    assert specs
    for path in specs:
        tumors = load_json(str(path))["tumors"]
        truth = np.asarray(nib.load(folder / "gt_segmentations" / f"{path.stem}.nii.gz").dataobj)
        raw = np.asarray(nib.load(prepared_phantom.raw / "labelsTr" / f"{path.stem}.nii.gz").dataobj)
        assert tumors and np.isin(truth, (2, 4, 6)).any()
        # Nothing but organ has become tumor, and fat where one grows out.
        assert set(np.unique(raw[truth != raw])) <= {0, 1, 3, 5}


def test_second_run_keeps_everything_and_the_users_settings(prepared_phantom, copy_of_prepared_phantom, capsys):
    path = copy_of_prepared_phantom / "difftumor.json"
    edited = {**json.loads(path.read_text()), "shares": {"real": 0.2, "synthetic": 0.7, "healthy": 0.1}}
    path.write_text(json.dumps(edited))
    times = {p: p.stat().st_mtime_ns for p in copy_of_prepared_phantom.rglob("*.b2nd")}
    assert prepare(*SAME_REQUEST) == 0
    assert times == {p: p.stat().st_mtime_ns for p in copy_of_prepared_phantom.rglob("*.b2nd")}
    assert DiffTumorConfig.load(path).shares == SampleShares(0.2, 0.7, 0.1)
    assert "preprocessing: kept" in capsys.readouterr().out


LIVER, KIDNEY, PANCREAS = "liver=1:2:2,4,6", "kidney=3:4:2,4,6", "pancreas=5:6:2,4,6"


def test_options_that_say_what_the_settings_say_pass_in_any_order(prepared_phantom, copy_of_prepared_phantom):
    path = copy_of_prepared_phantom / "difftumor.json"
    before = path.read_text()
    organs = ("--organ", PANCREAS, "--organ", LIVER, "--organ", KIDNEY)
    assert prepare(*SAME_REQUEST, "--preset", "realistic", *organs) == 0
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--preset", "hu2023"),
            (
                '{"preset": "realistic", "shares": {"real": 0.5, "synthetic": 0.5, "healthy": 0.0}}, which',
                '{"preset": "hu2023", "shares": {"real": 0.1, "synthetic": 0.9, "healthy": 0.0}} is asked for',
                "leave out --preset, or start again with --overwrite",
            ),
        ),
        (
            ("--organ", LIVER),
            ('{"organs": [{"name": "liver", "organ_labels": [1], "tumor_label": 2, "avoid_labels": [2, 4, 6]}]} is',),
        ),
        (("--organ", "liver=1:2", "--preset", "difftumor"), ("leave out --preset and --organ",)),
    ],
)
def test_options_that_differ_from_the_settings_are_refused(prepared_phantom, capsys, arguments, said):
    path = prepared_phantom.preprocessed / "difftumor.json"
    before = path.read_text()
    assert prepare(*SAME_REQUEST, *arguments) == 2
    error = capsys.readouterr().err
    assert f"{path}: has " in error and all(text in error for text in said)
    assert path.read_text() == before


def test_pairs_in_the_settings_count_where_dataset_json_does_not_show_them(prepared_phantom, copy_of_prepared_phantom):
    path = prepared_phantom.raw / "dataset.json"
    before = path.read_text()
    labels = {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "spleen": 7}
    path.write_text(json.dumps({**json.loads(before), "labels": labels}))
    try:
        assert prepare(*SAME_REQUEST) == 0
    finally:
        path.write_text(before)


def test_interrupted_run_goes_on(prepared_phantom, copy_of_prepared_phantom):
    # As if it was interrupted while measuring: no settings yet, half of the statistics, no validation cases.
    (copy_of_prepared_phantom / "difftumor.json").unlink()
    shutil.rmtree(copy_of_prepared_phantom / "difftumor_validation")
    store = StatisticsStore(copy_of_prepared_phantom, "nnUNetPlansDiffTumor_3d_fullres")
    store.path("phantom_001", "liver").unlink()
    (store.folder / "phantom_001.json").unlink()
    assert prepare(*SAME_REQUEST) == 0
    assert store.cases("liver") == {f"phantom_{i:03d}" for i in range(4)} | {"phantom_tumor_000", "phantom_tumor_001"}
    assert DiffTumorConfig.load(copy_of_prepared_phantom / "difftumor.json")
    assert list((copy_of_prepared_phantom / "difftumor_validation" / "specs").glob("*.json"))


def test_statistics_that_were_deleted_are_made_again(prepared_phantom, copy_of_prepared_phantom):
    path = StatisticsStore(copy_of_prepared_phantom, "nnUNetPlansDiffTumor_3d_fullres").path("phantom_001", "liver")
    before = OrganStatistics.load(path)
    path.unlink()
    assert prepare(*SAME_REQUEST) == 0
    assert OrganStatistics.load(path).parenchyma_hu == before.parenchyma_hu


def test_bases_that_look_unenhanced_are_noted_once(prepared_phantom, copy_of_prepared_phantom, capsys):
    assert prepare(*SAME_REQUEST) == 0
    assert "unenhanced" not in capsys.readouterr().out
    path = StatisticsStore(copy_of_prepared_phantom, "nnUNetPlansDiffTumor_3d_fullres").path("phantom_001", "liver")
    replace(OrganStatistics.load(path), parenchyma_hu=45.0).save(path)
    assert prepare(*SAME_REQUEST) == 0
    assert capsys.readouterr().out.count("NOTE: 1 of 4 bases look unenhanced (liver 45 HU)") == 1


def test_another_request_needs_overwrite(prepared_phantom, capsys):
    assert prepare("--spacing", "5", "5", "5") == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "-d", "777"], "expected one Dataset777_NAME"),
        (["prepare", "-d", "501", "--organ", "liver=1:9"], "label 9 is not declared"),
        (["prepare", "-d", "501", "--organ", "liver"], "expected NAME=ORGAN:TUMOR"),
    ],
)
def test_wrong_arguments_are_named(prepared_phantom, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "ending"), [(True, "nnUNetPlansDiffTumor"), (False, "nnUNetPlansDiffTumor -device cpu")]
)
def test_the_training_that_is_recommended_runs_on_this_machine(prepared_phantom, capsys, monkeypatch, there, ending):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert prepare(*SAME_REQUEST) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"train with: nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerDiffTumor -p {ending}"
    )


def test_what_nnunet_says_of_plans_is_in_a_file(prepared_phantom):
    text = (prepared_phantom.preprocessed / "nnUNetPlansDiffTumor.log").read_text()
    assert "3D fullres U-Net configuration:" in text and "Plans were saved to" in text


def test_missing_variable_is_named(prepared_phantom, capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    assert prepare() == 2
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().err


@pytest.mark.parametrize("blocks", ["n_conv_per_stage", "n_blocks_per_stage"])
@pytest.mark.parametrize("patch_size", [(96, 96, 96), (64, 128, 128), (40, 40, 40), (192, 192, 192)])
def test_any_patch_size_gives_a_network_that_builds(blocks, patch_size):
    configuration = {
        "spacing": [1.0, 1.0, 1.0],
        "patch_size": [32, 32, 32],
        "architecture": {
            "arch_kwargs": {
                "n_stages": 4,
                "features_per_stage": [32, 64, 128, 256],
                "strides": [[1] * 3] + [[2] * 3] * 3,
                "kernel_sizes": [[3] * 3] * 4,
                blocks: [1, 3, 4, 6],
                "n_conv_per_stage_decoder": [1, 1, 1],
            }
        },
    }
    _set_patch_size(configuration, patch_size)
    network = configuration["architecture"]["arch_kwargs"]
    stages = network["n_stages"]
    assert len(network["strides"]) == len(network["kernel_sizes"]) == len(network[blocks]) == stages
    assert len(network["features_per_stage"]) == stages and max(network["features_per_stage"]) <= 320
    assert len(network["n_conv_per_stage_decoder"]) == stages - 1
    divisor = np.prod(network["strides"], axis=0)
    assert (np.array(configuration["patch_size"]) % divisor == 0).all()
    assert (np.array(configuration["patch_size"]) >= patch_size).all()
