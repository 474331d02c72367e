"""No case is lost by its name."""

import json

import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.checks.case_names import unusable_names


@pytest.mark.parametrize("name", ["a", "pat_1", "s0001", "img_0001", "patient_2019", "a_segment", "Größe", "日本"])
def test_usual_names_are_kept(name):
    assert unusable_names([name]) == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pat_seg", "end in _seg"),
        ("pat_0000", "first channel"),
        ("two words", "cannot be a case name"),
        ("-a", "cannot"),
    ],
)
def test_names_that_would_be_lost_have_a_reason(name, reason):
    unusable = unusable_names(["good", name])
    assert list(unusable) == [name] and reason in unusable[name]


@pytest.mark.parametrize(("first", "second"), [("Pat", "pat"), ("Gro\u0308\u00dfe", "Gr\u00f6\u00dfe"), ("A1", "a1")])
def test_of_names_that_are_one_for_some_file_systems_the_first_is_kept(first, second):
    unusable = unusable_names([first, "other", second])
    assert list(unusable) == [second] and repr(first) in unusable[second]


def test_the_command_reports_them(tmp_path, raw, save_case, report_of):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    for case in ("pat1", "PAT1", "pat2", "pat3_seg", "pat4_0000"):
        save_case(tmp_path / "in" / case)
    assert main(["convert", "folder", "-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1", "tumor=2"]) == 0
    report = report_of(raw / "Dataset007_in")
    assert set(report["cases"]) == {"PAT1", "pat2"} and set(report["rejected"]) == {"pat1", "pat3_seg", "pat4_0000"}
    assert json.loads((raw / "Dataset007_in" / "dataset.json").read_text())["numTraining"] == 2
    # What nnU-Net makes of such a name.
    (tmp_path / "made").mkdir()
    for name in ("pat2", "pat2_seg", "pat3_seg", "pat3_seg_seg"):
        (tmp_path / "made" / f"{name}.b2nd").write_bytes(b"")
    assert list(nnUNetDatasetBlosc2.get_identifiers(str(tmp_path / "made"))) == ["pat2"]
