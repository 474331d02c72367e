"""`difftumor check`: every fault that it is there for, seeded into prepared phantoms, is found and named."""

import gzip
import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from changeable import REQUEST, ChangeableDataset, start
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from tiny_networks import write_weights

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion import phantom
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.check import check
from nnunet_difftumor.prepared.made_from import records

BASE, REAL = "phantom_001", "phantom_tumor_000"


@pytest.fixture(scope="module", autouse=True)
def looked_at(prepared_phantom):
    """Once, so that each test's check looks at what the test has changed."""
    check(501, processes=1, report=lambda line: None)
    yield
    shutil.rmtree(prepared_phantom.preprocessed / "difftumor_checks")


def found(dataset: ChangeableDataset, kind: str, case: str) -> str:
    """The line of the only finding of a kind about a case, from the command, which must say that something is wrong."""
    output = dataset.folder / "findings.json"
    assert main(["check", "-d", "501", "-np", "1", "-o", str(output)]) == 2
    content = json.loads(output.read_text())
    (finding,) = [entry for entry in content["findings"] if entry["kind"] == kind and entry["case"] == case]
    assert finding["severity"] in ("error", "warning")
    return f"{finding['seen']}; {finding['do']}"


def edit(path: Path, change) -> None:
    """Changes the voxels of a file, (x, y, z)."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj).copy()), image.affine, image.header), path)


def moved(values: np.ndarray, voxels: int, axis: int) -> np.ndarray:
    result = np.roll(values, voxels, axis)
    index = [slice(None)] * 3
    index[axis] = slice(0, voxels) if voxels > 0 else slice(voxels, None)
    result[tuple(index)] = 0
    return result


def prepare(*arguments: str) -> None:
    assert main(["prepare", "-d", "501", "-np", "1", *REQUEST, *arguments]) == 0


def test_phantoms_are_all_well(dataset, capsys):
    assert main(["check", "-d", "501", "-np", "1"]) == 0
    assert "Dataset501_Phantom: 6 cases, all well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("offset", "said"), [(1024, "1024 too much"), (-1024, "slope and intercept"), (60, "fat is at"), (-60, "fat is at")]
)
def test_values_that_are_not_hu(dataset, offset, said):
    edit(dataset.image(BASE), lambda hu: hu + np.int16(offset))
    assert said in found(dataset, "unreadable" if abs(offset) > 1000 else "not-hu", BASE)


def test_check_and_synthesize_have_the_same_limits_of_organs(dataset, tmp_path):
    """At the installed command: 350 HU too low, where no fat is left to be seen."""
    edit(dataset.image(BASE), lambda hu: np.where(hu < -50, -900, hu - 350).astype(hu.dtype))
    script = Path(sys.executable).with_name("difftumor")
    done = subprocess.run([script, "check", "-d", "501", "-np", "1"], capture_output=True, text=True)
    checked = re.search(rf"{BASE}: liver has a median of (-\d+), expected (\S+) to (\S+) HU", done.stdout + done.stderr)
    assert done.returncode == 2 and checked, done.stdout + done.stderr
    words = [script, "synthesize", dataset.image(BASE), "--organ-mask", dataset.label(BASE), "--organ-label", "1"]
    words += ["--organ", "liver", "-o", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True)
    refused = re.search(r"liver median (-\d+) HU; expected (\S+) to ([^;]+);", done.stderr)
    assert done.returncode == 2 and refused, done.stderr
    assert refused.groups() == checked.groups() and checked.groups()[1:] == ("-50", "300")


def test_two_readers_that_see_different_voxels(dataset):
    header = bytearray(gzip.decompress(dataset.image(BASE).read_bytes()))
    # A slope of 0 means none to nibabel, whatever the intercept; SimpleITK adds the intercept.
    header[112:120] = struct.pack("<2f", 0.0, -1024.0)
    dataset.image(BASE).write_bytes(gzip.compress(bytes(header)))
    assert "slope" in found(dataset, "unreadable", BASE)


def test_qform_unlike_sform(dataset):
    for path in (dataset.image(BASE), dataset.label(BASE)):
        image = nib.load(path)
        other = image.affine.copy()
        other[:3, 3] += 30
        image.set_qform(other, code=1)
        image.set_sform(image.affine, code=1)
        nib.save(image, path)
    assert "qform" in found(dataset, "unreadable", BASE)


def test_a_voxel_size_that_was_never_set(dataset):
    for path in (dataset.image(BASE), dataset.label(BASE)):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), np.eye(4)), path)
    assert "spacing" in found(dataset, "unreadable", BASE)


def test_a_file_that_was_cut_short(dataset):
    path = dataset.image(BASE)
    path.write_bytes(path.read_bytes()[:-5000])
    assert f"{path}: cannot be read" in found(dataset, "unreadable", BASE)


def test_a_file_with_a_flipped_bit(dataset):
    path = dataset.image(BASE)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # in the checksum of the content
    path.write_bytes(content)
    assert str(path) in found(dataset, "unreadable", BASE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda labels: labels[::-1], "labels look mirrored left to right"),
        (lambda labels: moved(labels, 5, 2), "labels look shifted by 20 mm up"),
        (lambda labels: moved(labels, 7, 1), "labels look shifted by 20 mm"),
        (lambda labels: moved(labels, -7, 0), "labels look shifted by 20 mm to the"),
    ],
)
def test_labels_in_the_wrong_place(dataset, change, said):
    edit(dataset.label(BASE), change)
    output = dataset.folder / "findings.json"
    assert main(["check", "-d", "501", "-np", "1", "-o", str(output)]) == 2
    findings = [entry for entry in json.loads(output.read_text())["findings"] if entry["kind"] == "misplaced-labels"]
    assert {entry["case"] for entry in findings} == {BASE} and {entry["severity"] for entry in findings} == {"error"}
    assert any(entry["seen"].startswith("liver: ") and said in entry["seen"] for entry in findings), findings


def test_labels_of_another_patient(dataset):
    other = np.asarray(nib.load(dataset.label("phantom_003")).dataobj)

    def replaced(labels):
        shared = tuple(slice(0, min(a, b)) for a, b in zip(labels.shape, other.shape, strict=True))
        labels[:] = 0
        labels[shared] = other[shared]
        return labels

    edit(dataset.label(BASE), replaced)
    output = dataset.folder / "findings.json"
    assert main(["check", "-d", "501", "-np", "1", "-o", str(output)]) == 2
    findings = json.loads(output.read_text())["findings"]
    assert {entry["case"] for entry in findings if entry["kind"] == "misplaced-labels"} == {BASE}


def test_a_label_that_was_mended_after_prepare(dataset):
    dataset.mend(REAL, old=2, new=1)
    assert f"{dataset.label(REAL)} has changed since" in found(dataset, "stale", REAL)


def test_a_case_that_was_withdrawn(dataset):
    dataset.withdraw(BASE)
    assert "`difftumor prepare -d 501`" in found(dataset, "withdrawn", BASE)


def test_a_case_that_was_added(dataset):
    dataset.add("new", like=BASE)
    assert "`difftumor prepare -d 501`" in found(dataset, "added", "new")


def test_plans_with_another_window(dataset):
    path = dataset.folder / "nnUNetPlansDiffTumor.json"
    plans = json.loads(path.read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["percentile_00_5"] = -1000.0
    path.write_text(json.dumps(plans))
    assert "-1000 to 250" in found(dataset, "window", "")


def test_an_organ_that_is_empty(dataset):
    edit(dataset.label(BASE), lambda labels: labels * 0)
    assert "the label map holds no organ" in found(dataset, "empty-organ", BASE)


def test_an_organ_that_is_a_speck(dataset):
    def speck(labels):
        place = tuple(np.argwhere(labels == 1)[0])
        labels[labels == 1] = 0
        labels[place] = 1
        return labels

    edit(dataset.label(BASE), speck)
    assert "liver: 0.036 ml are labelled, which is a speck" in found(dataset, "specks", BASE)


def test_an_organ_in_many_pieces(dataset):
    def sieve(labels):
        labels[(labels == 1) & (np.indices(labels.shape) % 4 < 2).any(axis=0)] = 0
        return labels

    edit(dataset.label(BASE), sieve)
    assert "liver: its labels lie in many pieces" in found(dataset, "specks", BASE)


def test_a_tumor_far_from_its_organ(dataset):
    def far(labels):
        labels[:4, :4, :4] = 2
        return labels

    edit(dataset.label(REAL), far)
    assert "1 tumors lie apart from the liver" in found(dataset, "far-tumor", REAL)


def test_a_preprocessed_case_that_is_zero(dataset):
    data, seg, _, properties = nnUNetDatasetBlosc2(str(dataset.arrays), [BASE]).load_case(BASE)
    blank, labels = np.zeros(data.shape, np.float32), seg[:]
    del data, seg
    for name in (f"{BASE}.b2nd", f"{BASE}_seg.b2nd", f"{BASE}.pkl"):
        (dataset.arrays / name).unlink()
    nnUNetDatasetBlosc2.save_case(blank, labels, properties, str(dataset.arrays / BASE))
    path = records.cases_folder(dataset.folder) / f"{BASE}.json"
    record = records.read_case_record(path)
    hashes = records.file_hashes(dataset.folder)
    arrays = {
        name: ((dataset.arrays / name).stat().st_size, hashes.sha256(dataset.arrays / name)) for name in record.arrays
    }
    records.write_case_record(path, replace(record, arrays=arrays))
    assert f"{BASE}.b2nd is 0 all over" in found(dataset, "constant", BASE)


def test_a_preprocessed_case_with_another_byte(dataset):
    path = dataset.arrays / f"{BASE}.b2nd"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "it is damaged" in found(dataset, "damaged", BASE)


@pytest.mark.parametrize("how", ["as it is", "cropped", "coarser", "flipped"])
def test_one_scan_that_trains_and_validates(dataset, how):
    """A base, which trains in every fold, is the scan of a real case, which validates in one."""
    image, label = nib.load(dataset.image(REAL)), nib.load(dataset.label(REAL))
    if how == "cropped":  # half of the volume
        image, label = (file.slicer[:, 14:, 10:] for file in (image, label))
    if how == "coarser":
        image, label = (file.slicer[::2, ::2, ::2] for file in (image, label))
    if how == "flipped":
        image, label = nib.as_closest_canonical(image), nib.as_closest_canonical(label)
    values = np.asarray(label.dataobj).copy()
    values[values == 2] = 1
    nib.save(image, dataset.image("twin"))
    nib.save(nib.Nifti1Image(values, label.affine, label.header), dataset.label("twin"))
    dataset.count()
    prepare()
    said = found(dataset, "same-scan", REAL)
    assert "is the same scan as twin; in fold" in said and "validates what the other trains" in said


def test_one_scan_in_two_datasets(dataset, capsys):
    other = dataset.raw.with_name("Dataset509_Test")
    shutil.copytree(dataset.raw, other)
    try:
        for path in (*other.glob("imagesTr/phantom_0*"), *other.glob("labelsTr/phantom_0*")):
            path.unlink()
        content = json.loads((other / "dataset.json").read_text())
        (other / "dataset.json").write_text(json.dumps({**content, "numTraining": 2}))
        assert main(["check", "-d", "501", "-np", "1", "--against", "509"]) == 2
        said = capsys.readouterr().out
        for case in ("phantom_tumor_000", "phantom_tumor_001"):
            assert f"ERROR {case}: is the same scan as {case} of Dataset509_Test" in said
        assert said.count("ERROR") == 2
        assert main(["check", "-d", "501", "--against", "888"]) == 2
        assert "--against 888: expected one Dataset888_NAME" in capsys.readouterr().err
    finally:
        shutil.rmtree(other)
        shutil.rmtree(dataset.folder.with_name(other.name), ignore_errors=True)


def test_a_lesion_in_a_healthy_pool(dataset):
    pool = phantom.convert(514, name="Pool", cases=1, tumor_cases=1, seed=11, spacing_mm=(5.0, 4.0, 4.0))
    try:
        prepare("--healthy", "514")
        assert "has lesions (label 2)" in found(dataset, "lesion-in-healthy-case", f"{pool.name}_phantom_tumor_000")
    finally:
        shutil.rmtree(pool)


def test_a_bank_made_from_another_version_of_a_case(dataset, tmp_path):
    bank = tmp_path / "bank"
    arguments = ["synthesize", "--bank", "-d", "501", "--per-case", "1", "-o", str(bank)]
    assert main(arguments) == 0
    path = dataset.folder / "difftumor.json"
    settings = {**json.loads(path.read_text()), "source": "bank", "bank_folder": str(bank)}
    path.write_text(json.dumps(settings))
    assert main(["check", "-d", "501", "-np", "1"]) == 0
    assert not [line for line in start(dataset) if "ERROR" in line]
    edit(dataset.image(BASE), lambda hu: hu + np.int16(5))
    prepare()
    assert "made from another version of the case" in found(dataset, "stale-bank", BASE)
    with pytest.raises(InputError, match=f"{BASE}: .* made from another version of the case"):
        start(dataset)
    # The way out.
    kept = {path: path.read_bytes() for path in bank.glob("*/*.npz") if path.parent.name != BASE}
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert main(["check", "-d", "501", "-np", "1"]) == 0


def live(dataset: ChangeableDataset, weights: Path) -> None:
    path = dataset.folder / "difftumor.json"
    content = json.loads(path.read_text())
    content |= {"source": "live", "organs": content["organs"][:1], "live": {"weights_folder": str(weights)}}
    path.write_text(json.dumps(content))
    made = records.read_dataset_record(dataset.folder)
    records.write_dataset_record(dataset.folder, replace(made, organs=made.organs[:1]))


def rewrite(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("liver_late", lambda page: page["diffusion"].update(codebook_sha256="0" * 64), "their codebooks differ"),
        ("liver_early", lambda page: page["volumes"].update(window_hu=[-1000, 1000]), "sees -1000 to 1000 HU, but"),
        ("liver_early", lambda page: page["diffusion"].update(organ="kidney"), "is a model of kidney, early, expected"),
    ],
)
def test_weights_that_do_not_fit(dataset, tmp_path, file, change, said):
    weights = write_weights(tmp_path / "weights", "liver_early", "liver_late")
    live(dataset, weights)
    assert main(["check", "-d", "501", "-np", "1"]) == 0
    rewrite(weights / f"{file}.json", change)
    assert said in found(dataset, "unfit-weights", "")


def test_what_a_check_found_stops_the_next_training(dataset):
    edit(dataset.label(BASE), lambda labels: moved(labels, 7, 1))
    prepare()
    shutil.rmtree(dataset.folder / "difftumor_checks")
    said = start(dataset)
    assert any("NOTE nobody has looked at the raw data of 6 cases" in line for line in said)
    assert main(["check", "-d", "501", "-np", "1"]) == 2
    with pytest.raises(InputError, match=f"the training does not begin: {BASE}: .* labels look shifted"):
        start(dataset)
    edit(dataset.label(BASE), lambda labels: moved(labels, -7, 1))
    prepare()
    assert any("of 1 cases" in line for line in start(dataset))


def test_nothing_is_read_again_while_files_stay_the_same(dataset, monkeypatch):
    monkeypatch.setattr("nnunet_difftumor.checks.examine.read_ct", None)
    assert check(501, processes=1, report=lambda line: None) == []


def test_several_processes_find_the_same(dataset):
    edit(dataset.label(BASE), lambda labels: moved(labels, 7, 1))
    one = check(501, processes=1, report=lambda line: None)
    assert one
    shutil.rmtree(dataset.folder / "difftumor_checks")
    assert check(501, processes=2, report=lambda line: None) == one


def test_the_installed_command_names_the_case(dataset):
    dataset.mend(REAL, old=2, new=1)
    command = [Path(sys.executable).with_name("difftumor"), "check", "-d", "501", "-np", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"ERROR {REAL}: {dataset.label(REAL)} has changed since the dataset was prepared" in done.stdout


def test_a_dataset_that_is_not_prepared_is_looked_at_too(dataset, capsys):
    shutil.rmtree(dataset.folder)
    try:
        assert main(["check", "-d", "501", "-np", "1"]) == 0
        assert "NOTE Dataset501_Phantom is not prepared" in capsys.readouterr().out
    finally:
        dataset.folder.mkdir(exist_ok=True)
