"""Scans without labels: from a folder of NIfTI and DICOM to steps of an autoencoder, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_series import SPACING_MM, save_dicom

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct.body import body_box
from nnunet_difftumor.ct.scan_folder import find_scans, read_scan
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stored_cases import StoredDataset
from nnunet_difftumor.preparation.generative.volumes import preprocess_generative

COMMAND = Path(sys.executable).with_name("difftumor")
# Array axes z, y, x lead to the head, to the back and to the left, as in most series.
AFFINE_ZYX = np.array([[0, 0, -3.0, 90], [0, -3.0, 0, 70], [4.0, 0, 0, -50], [0, 0, 0, 1]])


def trunk(seed: int = 0) -> np.ndarray:
    """A body of 132 x 180 mm above a table of 3 mm, float32 (z, y, x) in HU."""
    rng = np.random.default_rng(seed)
    _, y, x = np.indices((24, 64, 80))
    inside = ((y - 26) / 22) ** 2 + ((x - 40) / 30) ** 2 < 1
    hu = np.where(inside, 40 + 15 * rng.standard_normal(inside.shape), -1000)
    hu[inside & (((y - 26) / 18) ** 2 + ((x - 40) / 26) ** 2 > 1)] = -100
    hu[(y == 58) & (abs(x - 40) < 38)] = 150  # thin: no body
    return hu.astype(np.float32).round()


def save_nifti(path: Path, hu: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu.T.astype(np.int16), AFFINE_ZYX[:, [2, 1, 0, 3]]), path)


@pytest.fixture
def scans(tmp_path, monkeypatch) -> Path:
    """A folder with three scans, and a label map that somebody left there; nnU-Net's variables are set."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "clinic 1"
    save_nifti(folder / "a_0000.nii.gz", trunk(0))
    save_nifti(folder / "b" / "ct.nii.gz", trunk(1))
    save_nifti(folder / "b" / "liver.nii.gz", trunk(1) > 0)
    save_dicom(folder / "c" / "abdomen", trunk(2))
    return folder


def test_nifti_and_dicom_are_found_by_their_place_and_read_alike(scans):
    found = find_scans(scans)
    assert set(found) == {"a", "b", "b_liver", "c_abdomen"}
    assert len(found["c_abdomen"]) == 24 and len(found["a"]) == 1
    for name, seed in (("a", 0), ("c_abdomen", 2)):
        hu, affine = read_scan(found[name])
        np.testing.assert_array_equal(hu, trunk(seed))
        assert hu.dtype == np.float32
        np.testing.assert_allclose(affine, AFFINE_ZYX if name == "a" else [*AFFINE_ZYX[:3], AFFINE_ZYX[3]], atol=1e-6)


def test_the_body_is_found_without_the_table():
    hu = trunk()
    z, y, x = body_box(hu, SPACING_MM)
    assert (z.start, z.stop) == (0, 24)
    # Within a cell of 4 mm, and one around.
    assert 4 - 3 <= y.start <= 5 and 48 <= y.stop <= 49 + 3 and y.stop < 58
    assert 10 - 3 <= x.start <= 11 and 69 <= x.stop <= 70 + 3
    with pytest.raises(InputError, match="no body is seen"):
        body_box(np.full((20, 30, 30), -1000.0), SPACING_MM)


@pytest.mark.slow(file_seconds=25)
def test_a_folder_becomes_volumes_and_ten_steps_of_an_autoencoder(scans, tmp_path, capsys):
    """With the commands that a user has."""
    words = ["preprocess-generative", "-d", "71", "--unlabelled", scans, "-np", "1"]
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "clinic_1_b_liver REJECTED: " in done.stdout and "less than 100 HU apart" in done.stdout
    assert "without labels: 3 scans, cropped to the body" in done.stdout
    folder = tmp_path / "preprocessed" / "Dataset071_clinic_1" / "generative"
    stored = StoredDataset(folder)
    assert stored.index.cases == ("clinic_1_a", "clinic_1_b", "clinic_1_c_abdomen") and stored.index.organs == ()
    for case in stored.cases.values():
        assert case.organs == {} and case.lesions == ()
        # Slices of 4 mm; the body is 132 mm deep and 180 mm wide: z, x, y of 1 mm, and up to 2 cells of 4 mm more.
        assert case.shape[0] == 96 and 180 <= case.shape[1] <= 204 and 132 <= case.shape[2] <= 156
        middle = stored.volume(case.name, [n // 2 for n in case.shape], (4, 4, 4))
        assert middle.mean() == pytest.approx(2 * (40 + 175) / 425 - 1, abs=0.1)
    before = {path: path.stat().st_mtime_ns for path in (folder / "cases").iterdir()}
    assert (
        "4 cases, 1 of them to preprocess" in subprocess.run([COMMAND, *words], capture_output=True, text=True).stdout
    )
    assert {path: path.stat().st_mtime_ns for path in (folder / "cases").iterdir()} == before

    small = ["patch_size=[8, 8, 16]", "codes=64", "hidden_channels=4", "norm_groups=4", "discriminator_channels=2"]
    small += ["batch_size=1", "validation_crops=1", "log_every=5", "checkpoint_every=1000", "workers=0"]
    train = ["train-autoencoder", "-d", "71", "--preset", "tiny", "--device", "cpu", "--steps", "10"]
    assert main([*train, *(word for setting in small for word in ("--set", setting))]) == 0
    weights = tmp_path / "results" / "Dataset071_clinic_1" / "generative" / "autoencoder.json"
    trained_on = json.loads(weights.read_text())["source"]["trained_on"]
    assert trained_on["training_cases"] == list(stored.index.cases)
    assert main(["train-diffusion", "-d", "71", "--organ", "liver", "--stage", "early"]) == 2
    assert "has no organ; name it when preprocessing" in capsys.readouterr().err


def write_raw(raw: Path, name: str, labels: dict[str, int], *, with_maps: bool) -> None:
    save_nifti(raw / name / "imagesTr" / "own_0000.nii.gz", trunk(5))
    if with_maps:
        organ = np.zeros(trunk().shape, np.int16)
        organ[8:16, 20:30, 30:50] = 1
        organ[10:13, 23:27, 36:42] = 2
        save_nifti(raw / name / "labelsTr" / "own.nii.gz", organ)
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (raw / name / "dataset.json").write_text(json.dumps(content))


def test_unlabelled_scans_are_added_to_a_dataset_with_labels(scans, tmp_path):
    write_raw(tmp_path / "raw", "Dataset072_Own", {"background": 0, "liver": 1, "liver_tumor": 2}, with_maps=True)
    alone = preprocess_generative(72, processes=1, margin_mm=6)
    before = (alone / "cases" / "own.json").stat().st_mtime_ns
    (scans / "b" / "liver.nii.gz").unlink()
    stored = StoredDataset(preprocess_generative(72, processes=1, margin_mm=6, unlabelled=[scans]))
    assert stored.index.cases == ("own", "clinic_1_a", "clinic_1_b", "clinic_1_c_abdomen")
    assert list(stored.cases["own"].organs) == ["liver"] and len(stored.cases["own"].lesions) == 1
    assert (alone / "cases" / "own.json").stat().st_mtime_ns == before
    assert stored.cases["clinic_1_a"].organs == {}


def test_a_dataset_without_organ_labels_needs_no_label_maps(scans, tmp_path):
    write_raw(tmp_path / "raw", "Dataset073_Bare", {"background": 0}, with_maps=False)
    stored = StoredDataset(preprocess_generative(73, processes=1))
    assert stored.index.cases == ("own",) and stored.cases["own"].organs == {} and stored.index.organs == ()
    assert stored.cases["own"].shape[0] == 96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled": ["{tmp}/none"]}, "none: no such folder"),
        ({"unlabelled": ["{tmp}/raw"]}, "raw: neither images .* nor DICOM files"),
        ({"unlabelled": ["{tmp}/clinic 1", "{tmp}/clinic 1"]}, "two scans would be named clinic_1_a"),
        ({"unlabelled": ["{tmp}/clinic 1"], "organ": ["liver=1:2"]}, "`organ`, `healthy`: for a dataset in nnUNet_raw"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_anything_is_written(scans, tmp_path, options, message):
    options = {key: [text.format(tmp=tmp_path) for text in value] for key, value in options.items()}
    with pytest.raises(InputError, match=message) as caught:
        preprocess_generative(74, processes=1, **options)
    assert "\n" not in str(caught.value) and not list((tmp_path / "preprocessed").iterdir())


def test_a_series_that_is_not_whole_is_refused_with_its_reason(tmp_path):
    """All reasons: tests/ct/test_dicom_series.py."""
    save_dicom(tmp_path / "d", trunk(), skip=[9])
    (files,) = find_scans(tmp_path / "d").values()
    with pytest.raises(InputError, match=r"lie 8\.00 mm apart, and most slices 4\.00 mm"):
        read_scan(files)


def test_a_series_of_too_many_voxels_is_refused_before_it_is_read(tmp_path, monkeypatch):
    save_dicom(tmp_path / "d", trunk())
    (files,) = find_scans(tmp_path / "d").values()
    monkeypatch.setenv("DIFFTUMOR_MOST_VOXELS", "1000")
    with pytest.raises(InputError, match="voxels, expected at most 1000"):
        read_scan(files)


def test_two_series_of_a_folder_are_two_scans(scans):
    save_dicom(scans / "e", trunk(), number=1)
    save_dicom(scans / "e", trunk(3), number=2)
    found = find_scans(scans)
    assert {"e_series0", "e_series1"} <= set(found)
    np.testing.assert_array_equal(read_scan(found["e_series1"])[0], trunk(3))


def test_the_command_says_the_same(scans, capsys):
    assert main(["preprocess-generative", "-d", "76", "--unlabelled", str(scans / "nowhere")]) == 2
    assert (
        "no such folder; give one with image files (.nii.gz, .nii, .mha or .nrrd) or DICOM series"
        in capsys.readouterr().err
    )
