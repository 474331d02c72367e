"""preprocess-generative on miniature datasets: geometry, lesions, resumption."""

import json
import math
import os

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stored_cases import StoredDataset
from nnunet_difftumor.preparation.generative.volumes import preprocess_generative

# Array axes x, y, z of the file lead to posterior, inferior and right, as in a scan that was reformatted.
TURN = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)
SPACING_MM = (1.5, 4.5, 0.8)
SHAPE = (30, 14, 50)
ORIGIN_MM = (-20.0, 35.0, 70.0)
# Where balls of a tumor lie, in RAS mm, and their diameters.
BALLS_MM = (((-5.0, 20.0, 30.0), 14.0), ((8.0, 5.0, 48.0), 9.0))


@pytest.fixture
def folders(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return raw


def write_dataset(raw, name, cases, *, labels=None):
    """Cases by name: affine and which voxels are organ and tumor, as functions of positions (x, y, z, 3) in mm."""
    folder = raw / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case, (affine, shape, organ, tumor) in cases.items():
        indices = np.stack([*np.indices(shape), np.ones(shape)], -1)
        at_mm = (indices @ affine.T)[..., :3]
        label = np.where(tumor(at_mm), 2, np.where(organ(at_mm), 1, 0)).astype(np.uint8)
        hu = np.select([label == 2, label == 1], [40, 110], -300) + 0.01 * at_mm[..., 0]
        nib.save(nib.Nifti1Image(hu.astype(np.float32), affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"{case}.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": labels or {"background": 0, "liver": 1, "liver_tumor": 2}}
    content |= {"numTraining": len(cases), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def odd_case():
    affine = np.eye(4)
    affine[:3, :3] = TURN * SPACING_MM
    affine[:3, 3] = ORIGIN_MM

    def balls(at_mm):
        return np.any([np.linalg.norm(at_mm - c, axis=-1) < d / 2 for c, d in BALLS_MM], axis=0)

    return affine, SHAPE, lambda at_mm: np.linalg.norm(at_mm - (0, 13, 40), axis=-1) < 20, balls


def test_landmarks_keep_their_place_and_axes_are_the_networks(folders):
    write_dataset(folders, "Dataset610_Odd", {"odd": odd_case()})
    stored = StoredDataset(preprocess_generative(610, processes=1, margin_mm=6))
    case = stored.cases["odd"]
    affine = np.array(case.affine)

    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions, np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), atol=1e-6)
    np.testing.assert_allclose(case.spacing_mm, 1, atol=0.03)
    assert len(case.lesions) == 2
    for centre_mm, diameter_mm in BALLS_MM:
        found = [(affine @ [*lesion.centre, 1])[:3] for lesion in case.lesions]
        nearest = int(np.argmin([np.linalg.norm(at - centre_mm) for at in found]))
        # Half a voxel of the thick slices, which is what the balls' own rasterization may cost.
        np.testing.assert_allclose(found[nearest], centre_mm, atol=2.3)
        assert case.lesions[nearest].diameter_mm == pytest.approx(diameter_mm, abs=2.0)
        box = case.lesions[nearest].box
        corner, size = [start for start, _ in box], [stop - start for start, stop in box]
        mask = stored.lesion_mask("odd", nearest + 1, corner, size=size)
        assert mask.sum() == case.lesions[nearest].voxels
        assert (stored.labels("odd", corner, size)[mask] == 2).all()
        # Inside the tumor the CT is what it was, up to what cubic interpolation overshoots near an edge.
        assert stored.volume("odd", case.lesions[nearest].centre, (1, 1, 1)) == pytest.approx(
            2 * (40 + 175) / 425 - 1, abs=0.06
        )
    # Clipped to the window.
    whole = stored.volume("odd", (0, 0, 0), case.shape)
    assert whole.min() == -1
    np.testing.assert_array_equal(stored.volume("odd", (-2, 1, 3), (6, 5, 4))[2:], whole[:4, 1:6, 3:7])


def test_second_call_makes_only_what_has_changed(folders):
    cases = {"a": odd_case(), "b": odd_case()}
    raw = write_dataset(folders, "Dataset611_Two", cases)
    folder = preprocess_generative(611, processes=1, margin_mm=0)
    times = {path.name: path.stat().st_mtime_ns for path in (folder / "cases").iterdir()}
    # Copied again: another time, the same content. And mended with the same time and size.
    (raw / "labelsTr" / "a.nii.gz").touch()
    mended = raw / "labelsTr" / "b.nii.gz"
    before = mended.stat()
    image = nib.load(mended)
    nib.save(nib.Nifti1Image(np.where(np.asarray(image.dataobj) == 2, 1, image.dataobj), image.affine), mended)
    os.utime(mended, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert mended.stat().st_size != before.st_size
    # As after a kill between the arrays and the record.
    (folder / "dataset.json").unlink()
    preprocess_generative(611, processes=1, margin_mm=0)
    again = {path.name: path.stat().st_mtime_ns for path in (folder / "cases").iterdir()}
    assert {name for name in times if times[name] != again[name]} == {
        f"b{ending}" for ending in ("_ct.b2nd", "_labels.b2nd", "_lesions.b2nd", ".json")
    }
    stored = StoredDataset(folder)
    assert stored.index.cases == ("a", "b")
    assert len(stored.cases["a"].lesions) == 2 and not stored.cases["b"].lesions


def test_what_prepare_knows_of_the_files_is_known_here_too(folders, monkeypatch):
    """One record of content: files that it has seen are not read for their hashes again, wherever the raw data lie."""
    raw = write_dataset(folders, "Dataset617_Known", {"a": odd_case()})
    folder = preprocess_generative(617, processes=1, margin_mm=0)
    known = json.loads((folder.parent / "difftumor_made_from" / "hashes.json").read_text())
    assert set(known) == {str(raw / "imagesTr" / "a_0000.nii.gz"), str(raw / "labelsTr" / "a.nii.gz")}
    before = (folder / "cases" / "a.json").stat().st_mtime_ns
    elsewhere = folders.parent / "elsewhere"
    folders.rename(elsewhere)
    monkeypatch.setenv("nnUNet_raw", str(elsewhere))
    preprocess_generative(617, processes=1, margin_mm=0)
    assert (folder / "cases" / "a.json").stat().st_mtime_ns == before


def test_cases_without_the_organ_are_rejected_and_pools_are_added(folders, capsys):
    affine, shape, organ, _ = odd_case()

    def nothing(at_mm):
        return np.zeros(at_mm.shape[:3], bool)

    write_dataset(folders, "Dataset612_Own", {"own": odd_case(), "empty": (affine, shape, nothing, nothing)})
    write_dataset(folders, "Dataset613_Pool", {"healthy": (affine, shape, organ, nothing)})
    assert main(["preprocess-generative", "-d", "612", "--healthy", "613", "-np", "1", "--margin-mm", "3"]) == 0
    stored = StoredDataset(folders.parent / "preprocessed" / "Dataset612_Own" / "generative")
    assert stored.index.cases == ("own", "Dataset613_Pool_healthy")
    assert "none of the labels [1, 2]" in stored.index.rejected["empty"]
    assert not stored.cases["Dataset613_Pool_healthy"].lesions
    assert "2 lesions, 2 below 20 mm" in capsys.readouterr().out


def test_specks_are_no_lesions(folders):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])

    def speck(at_mm):
        return np.all(np.abs(at_mm - 10) < 0.6, axis=-1) | np.all(np.abs(at_mm - 4.5) < 1.1, axis=-1)

    case = (affine, (16, 16, 16), lambda at_mm: np.ones(at_mm.shape[:3], bool), speck)
    write_dataset(folders, "Dataset614_Specks", {"case": case})
    record = StoredDataset(preprocess_generative(614, processes=1)).cases["case"]
    # 2 x 2 x 2 voxels are a lesion, a single one is not.
    assert [lesion.voxels for lesion in record.lesions] == [8]
    assert record.lesions[0].diameter_mm == pytest.approx((6 * 8 / math.pi) ** (1 / 3), abs=1e-3)
    assert record.specks == 1


def test_other_labels_in_a_pool_are_explained(folders):
    write_dataset(folders, "Dataset615_Own", {"own": odd_case()})
    labels = {"background": 0, "kidney": 1, "kidney_tumor": 2}
    write_dataset(folders, "Dataset616_Pool", {"other": odd_case()}, labels=labels)
    with pytest.raises(InputError, match=r"Dataset616_Pool.*labels are.*expected those of Dataset615_Own"):
        preprocess_generative(615, healthy=[616], processes=1)
