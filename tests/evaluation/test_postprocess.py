"""`postprocess` and `difftumor postprocess`: tumors outside of their organ, on label maps with known answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cc3d
import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.postprocessing import postprocess as module
from nnunet_difftumor.evaluation.postprocessing.organ_rule import judge, region_of
from nnunet_difftumor.evaluation.postprocessing.postprocess import REPORT, postprocess

AFFINE = np.array([[-1.5, 0, 0, 11], [0, -1, 0, 7], [0, 0, 2, -30], [0, 0, 0, 1.0]])
LIVER, TUMOR, KIDNEY, KIDNEY_TUMOR = 1, 2, 3, 4


def write(path: Path, *boxes, affine=AFFINE, shape=(40, 30, 20)) -> None:
    """A label map (x, y, z) of boxes (label, start, size)."""
    labels = np.zeros(shape, np.uint8)
    for label, start, size in boxes:
        labels[
            tuple(slice(first, first + length) for first, length in zip(start, np.broadcast_to(size, 3), strict=True))
        ] = label
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(labels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def folders(tmp_path):
    """Case a: a tumor in the liver, one far from it; b: only one far from it; c: a liver alone."""
    prediction = tmp_path / "predicted"
    liver = (LIVER, (2, 2, 2), 14)
    write(prediction / "a.nii.gz", liver, (TUMOR, (6, 6, 6), 3), (TUMOR, (30, 20, 10), 4))
    write(prediction / "b.nii.gz", liver, (TUMOR, (30, 4, 4), 2))
    write(prediction / "c.nii.gz", liver)
    (prediction / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "liver": LIVER, "liver_tumor": TUMOR}, "file_ending": ".nii.gz"})
    )
    return prediction, tmp_path / "out"


def test_predictions_in_other_formats_become_nifti(folders, tmp_path):
    prediction, output = folders
    postprocess(prediction, tmp_path / "expected")
    for path in prediction.glob("*.nii.gz"):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path).replace(".nii.gz", ".mha"))
        path.unlink()
    postprocess(prediction, output)
    assert sorted(path.name for path in output.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    for path in output.glob("*.nii.gz"):
        np.testing.assert_array_equal(read(path), read(tmp_path / "expected" / path.name))
    postprocess(prediction, output)


def test_tumors_far_from_the_predicted_liver_are_removed_and_nothing_else_is_changed(folders, capsys):
    prediction, output = folders
    assert main(["postprocess", str(prediction), "-o", str(output)]) == 0
    said = capsys.readouterr().out
    # Voxels of 3 mm3: 64 and 8 of them.
    assert "a: liver: 1 of 2 tumor components removed (0.192 ml)" in said
    assert "liver: 3 tumor components in 3 cases, 2 removed in 2 (0.216 ml)" in said
    before = {case: read(prediction / f"{case}.nii.gz") for case in "abc"}
    after = {case: read(output / f"{case}.nii.gz") for case in "abc"}
    expected = before["a"].copy()
    expected[30:] = 0
    assert np.array_equal(after["a"], expected)
    assert np.array_equal(after["b"], np.where(before["b"] == TUMOR, 0, before["b"]))
    assert np.array_equal(after["c"], before["c"])
    record = json.loads((output / REPORT).read_text())
    assert record["cases"]["a"]["organs"]["liver"]["components"] == [
        {"volume_ml": 0.192, "overlap": 0.0, "kept": False},
        {"volume_ml": 0.081, "overlap": 1.0, "kept": True},
    ]
    assert record["summary"]["liver"]["cases_changed"] == 2
    assert json.loads((output / "dataset.json").read_text())["labels"]["liver_tumor"] == TUMOR
    first, second = (nib.load(folder / "a.nii.gz").header for folder in folders)
    assert first.binaryblock == second.binaryblock  # the header, bit for bit
    ours, theirs = (SimpleITK.ReadImage(str(folder / "a.nii.gz")) for folder in folders)
    assert ours.GetOrigin() == theirs.GetOrigin() and ours.GetDirection() == theirs.GetDirection()


@pytest.mark.parametrize(
    ("tolerance_mm", "min_overlap", "kept"),
    [(0, 0.01, False), (5.9, 0.01, False), (6, 0.25, True), (7.5, 0.5, True), (7.5, 0.51, False), (10.5, 1, True)],
)
def test_share_and_tolerance_decide(tmp_path, tolerance_mm, min_overlap, kept):
    # The tumor begins 4 voxels of 1.5 mm beyond the organ's last one, and is 4 deep: planes at 6, 7.5, 9 and 10.5 mm.
    write(tmp_path / "in" / "a.nii.gz", (LIVER, (2, 2, 2), 10), (TUMOR, (15, 4, 4), 4))
    postprocess(
        tmp_path / "in",
        tmp_path / "out",
        organ_label=[LIVER],
        tumor_label=[TUMOR],
        tolerance_mm=tolerance_mm,
        min_overlap=min_overlap,
    )
    assert (read(tmp_path / "out" / "a.nii.gz") == TUMOR).any() == kept


def test_a_component_is_kept_whole_and_touching_voxels_are_one():
    organ = np.zeros((8, 10, 24), bool)
    organ[2:6, 2:8, 2:8] = True
    tumor = np.zeros_like(organ)
    tumor[3, 3, 6:14] = True  # two voxels of eight in the organ
    tumor[4, 4, 14] = True  # diagonal to it
    region = region_of(organ, spacing_mm=(1, 1, 1), tolerance_mm=0)
    removed, components = judge(tumor, region, min_overlap=2 / 9)
    assert not removed.any() and [component.voxels for component in components] == [9]
    removed, _ = judge(tumor, region, min_overlap=0.25)
    assert np.array_equal(removed, tumor)


def test_holes_of_the_organ_belong_to_it_at_any_tolerance():
    organ = np.zeros((9, 9, 9), bool)
    organ[1:8, 1:8, 1:8] = True
    tumor = np.zeros_like(organ)
    tumor[3:6, 3:6, 3:6] = True
    whole = organ.copy()
    organ &= ~tumor
    assert np.array_equal(region_of(organ, spacing_mm=(3, 1, 1), tolerance_mm=0), whole)
    organ[4, 4, 6:] = False  # a way out: no hole any more
    assert not region_of(organ, spacing_mm=(3, 1, 1), tolerance_mm=0)[3:6, 3:6, 3:6].any()
    # Voxels are 3 mm high: within 1 mm lie the four neighbours in a slice.
    dot = np.zeros((5, 7, 7), bool)
    dot[2, 3, 3] = True
    assert region_of(dot, spacing_mm=(3, 1, 1), tolerance_mm=1).sum() == 5
    assert region_of(dot, spacing_mm=(3, 1, 1), tolerance_mm=3)[:, 3, 3].sum() == 3
    assert not region_of(np.zeros_like(dot), spacing_mm=(1, 1, 1), tolerance_mm=5).any()


def test_several_organs_each_have_their_tumors_and_masks_have_their_own_values(tmp_path):
    prediction, masks, output = (tmp_path / name for name in ("in", "masks", "out"))
    # The liver's tumor lies in the kidney, the kidney's in the kidney, and of two values.
    write(prediction / "a.nii.gz", (TUMOR, (26, 4, 4), 3), (KIDNEY_TUMOR, (26, 10, 4), 3), (5, (29, 10, 4), 2))
    write(masks / "a.nii.gz", (50, (2, 2, 2), 10), (60, (22, 2, 2), 14))
    with pytest.raises(InputError, match=r"no label map has the value 61 \(kidney\); they hold 0, 50, 60"):
        postprocess(prediction, output, organ_masks=masks, organ=["liver=50:2", "kidney=60,61:4,5"])
    result = postprocess(prediction, output, organ_masks=masks, organ=["liver=50:2", "kidney=60:4,5"])
    assert {name: (total["components"], total["removed"]) for name, total in result["summary"].items()} == {
        "liver": (1, 1),
        "kidney": (1, 0),
    }
    labels = read(output / "a.nii.gz")
    assert sorted(np.unique(labels)) == [0, KIDNEY_TUMOR, 5]
    assert (labels == 5).sum() == 8


def test_regions_of_dataset_json_are_understood(tmp_path):
    """KiTS: kidney is 1, 2 and 3, tumor 2, cyst 3."""
    prediction = tmp_path / "in"
    write(prediction / "a.nii.gz", (1, (2, 2, 2), 14), (2, (5, 5, 5), 3), (3, (10, 10, 10), 2), (2, (30, 20, 10), 3))
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    (prediction / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [1, 3, 2]}))
    result = postprocess(prediction, tmp_path / "out")
    assert result["settings"]["organs"] == {"kidney": {"organ_values": [1], "tumor_values": [2]}}
    after = read(tmp_path / "out" / "a.nii.gz")
    assert not after[30:].any() and (after == 2).sum() == 27 and (after == 3).sum() == 8


def test_a_case_whose_organ_is_not_there_loses_its_tumors_and_is_named(folders):
    prediction, output = folders
    write(prediction / "d.nii.gz", (TUMOR, (6, 6, 6), 3))
    said = []
    result = postprocess(prediction, output, report=said.append)
    assert result["summary"]["liver"]["cases_without_organ"] == ["d"]
    assert "d: liver: 1 of 1 tumor components removed (0.081 ml); the organ is not there" in said
    assert said[-1].endswith("cases without the organ: d")
    assert not read(output / "d.nii.gz").any()


def test_an_interrupted_folder_goes_on_and_changed_predictions_are_judged_again(folders, monkeypatch, capsys):
    prediction, output = folders
    judged = []

    def counted(grid, *args, **kwargs):
        judged.append(grid.path.name[0])
        if len(judged) == 2:
            raise KeyboardInterrupt
        return original(grid, *args, **kwargs)

    original = module._judged
    monkeypatch.setattr(module, "_judged", counted)
    words = ["postprocess", str(prediction), "-o", str(output)]
    assert main(words) == 130
    assert "resumes where it stopped" in capsys.readouterr().err
    assert sorted(path.name for path in output.glob("*.nii.gz")) == ["a.nii.gz"]
    assert main(words) == 0
    assert judged == ["a", "b", "b", "c"]
    write(prediction / "c.nii.gz", (LIVER, (2, 2, 2), 14), (TUMOR, (30, 4, 4), 2))
    (output / "a.nii.gz").unlink()
    assert main(words) == 0
    assert judged[4:] == ["a", "c"]
    assert main([*words, "--tolerance-mm", "1"]) == 2
    assert "holds results of other folders or settings" in capsys.readouterr().err
    assert main([*words, "--tolerance-mm", "1", "--overwrite"]) == 0
    assert judged[6:] == ["a", "b", "c"]


def _stray(prediction, masks, output):
    write(output / "z.nii.gz", (1, (2, 2, 2), 3))


def _other_cases(prediction, masks, output):
    (masks / "a.nii.gz").rename(masks / "patient_7.nii.gz")


def _other_grid(prediction, masks, output):
    write(masks / "a.nii.gz", (5, (2, 2, 2), 10), affine=AFFINE + np.diag([0, 0, 1, 0]))


def _other_shape(prediction, masks, output):
    write(masks / "a.nii.gz", (5, (2, 2, 2), 10), shape=(40, 30, 21))


def _probabilities(prediction, masks, output):
    nib.save(nib.Nifti1Image(np.full((40, 30, 20), 0.5, np.float32), AFFINE), masks / "a.nii.gz")


def _truncated(prediction, masks, output):
    path = prediction / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])


def _withdrawn(prediction, masks, output):
    postprocess(prediction, output, organ_masks=masks, organ=["liver=5:2"])
    (prediction / "b.nii.gz").unlink()


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (_stray, {}, r"out: holds z.nii.gz, which this command has not made; name another folder"),
        (_other_cases, {}, r"masks: no organ mask for a; expected the file names of .*in"),
        (_other_grid, {}, r"masks/a.nii.gz: lies up to .* mm away from .*in/a.nii.gz"),
        (_other_shape, {}, r"masks/a.nii.gz: \(40, 30, 21\) voxels .* but .*in/a.nii.gz has \(40, 30, 20\)"),
        (_probabilities, {}, r"masks/a.nii.gz: a label map holds whole numbers.* 0.5"),
        (_truncated, {}, r"in/a.nii.gz: "),
        (_withdrawn, {}, r"holds b.nii.gz, which are not predicted any more; name another folder, or `overwrite`"),
        (None, {"organ": ["liver=6:2"]}, r"masks: no label map has the value 6 \(liver\); they hold 0, 5"),
        (None, {"organ": ["liver=5:9"]}, r"in: no label map has the value 9 \(tumors of liver\); they hold 0, 1, 2"),
        (None, {"organ": ["liver=5"]}, r"`organ` 'liver=5': expected NAME=ORGAN\[,ORGAN\]:TUMOR\[,TUMOR\]"),
        (None, {"organ": ["liver=5:0"]}, "0 is the background"),
        (None, {"organ": ["liver=5:2", "other=5:2"]}, "tumors of value 2 are those of liver and of other"),
        (None, {"organ": ["liver=5:2", "liver=6:4"]}, "names an organ twice"),
        (None, {"organ": ["liver=5:2"], "tumor_label": [2]}, "either `organ` .* or `organ_label` and `tumor_label`"),
        (None, {"organ": [], "organ_label": [5]}, r"in/dataset.json: no such file; give `dataset_json`"),
        (None, {"min_overlap": 0}, "`min_overlap`: expected a share above 0 and up to 1, got 0"),
        (None, {"min_overlap": float("nan")}, "`min_overlap`"),
        (None, {"tolerance_mm": -1}, "`tolerance_mm`: expected 0 mm or more, got -1"),
        (None, {"organ_masks": None, "organ": ["liver=1,2:2"]}, "2 is both organ and tumor"),
        (None, {"organ_masks": None, "organ": [], "tumor_label": [2]}, "without `organ_masks`.* belong together"),
    ],
)
def test_bad_input_is_named_and_nothing_is_lost(tmp_path, change, options, said):
    prediction, masks, output = (tmp_path / name for name in ("in", "masks", "out"))
    for case in "ab":
        write(prediction / f"{case}.nii.gz", (LIVER, (2, 2, 2), 10), (TUMOR, (4, 4, 4), 3))
        write(masks / f"{case}.nii.gz", (5, (2, 2, 2), 10))
    if change is not None:
        change(prediction, masks, output)
    before = {path: path.read_bytes() for path in output.glob("*.nii.gz")}
    with pytest.raises(InputError, match=said):
        postprocess(prediction, output, **({"organ_masks": masks, "organ": ["liver=5:2"]} | options))
    assert {path: path.read_bytes() for path in output.glob("*.nii.gz")} == before


def test_labels_that_dataset_json_does_not_declare_or_leaves_open_are_refused(folders):
    prediction, output = folders
    with pytest.raises(InputError, match=r"dataset.json: does not declare the label 7 of liver \(declared: 0, 1, 2\)"):
        postprocess(prediction, output, organ=["liver=1:7"])
    labels = {"background": 0, "liver": 1, "liver_tumor": 2, "kidney": 3, "kidney_tumor": 4}
    (prediction / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match="names the tumors liver_tumor, kidney_tumor, and each has its own organ"):
        postprocess(prediction, output, organ_masks=prediction)


@pytest.mark.parametrize(
    "cases",
    [[], {"a": 1}, {"a": {"file": ["a.nii.gz"], "organs": {}}}, {"a": {"file": "a.nii.gz", "organs": {"liver": {}}}}],
)
def test_a_report_of_something_else_is_refused(folders, cases):
    prediction, output = folders
    output.mkdir()
    (output / REPORT).write_text(json.dumps({"settings": {}, "cases": cases}))
    with pytest.raises(InputError, match=f"{REPORT}: is no report of this command; remove it, or name another folder"):
        postprocess(prediction, output)


def test_folders_that_are_read_are_not_written(folders, tmp_path):
    prediction, output = folders
    (tmp_path / "link").symlink_to(prediction)
    for folder in (prediction, tmp_path / "link", prediction / ".." / "predicted"):
        with pytest.raises(InputError, match="is the folder of the predictions, which stay as they are"):
            postprocess(prediction, folder)
    output.mkdir()
    with pytest.raises(InputError, match="is the folder of the organ masks"):
        postprocess(prediction, output, organ_masks=output)


@pytest.mark.slow(file_seconds=40)
def test_installed_command_on_a_real_ct_removes_what_lies_in_other_organs_and_keeps_all_metastases(test_data, tmp_path):
    """Eight metastases, and tumors said in spleen and left kidney; the mask of the liver leaves its tumors out."""
    source = test_data / "liver_tumors"
    labels, anatomy = (nib.load(source / f"{name}.nii.gz") for name in ("labels", "anatomy"))
    # Every other column and row.
    predicted = labels.slicer[::2, ::2]
    liver = np.asarray(predicted.dataobj) == LIVER
    tumors, elsewhere = np.asarray(predicted.dataobj) == TUMOR, np.asarray(anatomy.slicer[::2, ::2].dataobj)
    # In slabs of eight slices.
    false = ((elsewhere == 3) | (elsewhere == 5)) & (np.indices(elsewhere.shape)[2] % 20 < 8)
    masks, prediction, output = (tmp_path / name for name in ("masks", "in", "out"))
    for folder, content in ((masks, liver), (prediction, np.where(tumors | false, TUMOR, np.where(liver, LIVER, 0)))):
        folder.mkdir()
        image = nib.Nifti1Image(content.astype(np.uint8), None, predicted.header)
        nib.save(image, folder / "case_0.nii.gz")
    command = [Path(sys.executable).with_name("difftumor"), "postprocess", prediction, "--organ-masks", masks]
    done = subprocess.run(
        [*map(str, command), "--tumor-label", str(TUMOR), "-o", str(output)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    components = json.loads((output / REPORT).read_text())["cases"]["case_0"]["organs"]["organ"]["components"]
    count = cc3d.connected_components(tumors, connectivity=26).max()
    assert sum(item["kept"] for item in components) == count == 8
    # That of 54 mm, at the surface, has the least; without a tolerance it would have been lost.
    assert min(item["overlap"] for item in components if item["kept"]) == pytest.approx(0.48, abs=0.02)
    assert len(components) > 9 and f"{len(components) - 8} of {len(components)} tumor components removed" in done.stdout
    assert np.array_equal(np.asarray(nib.load(output / "case_0.nii.gz").dataobj) == TUMOR, tumors)
    for name in ("sform_code", "srow_x", "srow_z", "pixdim"):
        assert np.array_equal(nib.load(output / "case_0.nii.gz").header[name], predicted.header[name])
