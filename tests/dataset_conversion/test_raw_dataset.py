import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.ct.geometry import is_header_unset
from nnunet_difftumor.dataset_conversion.folder import convert
from nnunet_difftumor.dataset_conversion.phantom import convert as convert_phantom
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import only_writer

LABELS = {"liver": [1], "tumor": [2]}


def snapshot(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_dataset_passes_nnunets_own_verification(tmp_path, raw, save_case, verify):
    for case in ("a", "b", "healthy"):
        save_case(tmp_path / "in" / case, values=(1,) if case == "healthy" else (1, 2))
    verify(convert(tmp_path / "in", 7, labels=LABELS))


def test_an_existing_dataset_is_replaced_only_on_request(tmp_path, raw, save_case, capsys):
    save_case(tmp_path / "in" / "a")
    dataset = convert(tmp_path / "in", 7, labels=LABELS)
    before = snapshot(raw)
    arguments = ["convert", "folder", "-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1,2"]
    assert main(arguments) == 2
    assert "Dataset007_in exists; choose another id, or replace it with --overwrite" in capsys.readouterr().err
    assert snapshot(raw) == before
    save_case(tmp_path / "in" / "b")
    assert main([*arguments, "--overwrite"]) == 0
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == ["a.nii.gz", "b.nii.gz"]
    assert [path.name for path in raw.iterdir()] == ["Dataset007_in"]


def test_a_conversion_that_was_finished_before_is_success_unless_a_file_has_changed(tmp_path, raw, save_case, capsys):
    """It may have been stopped when all was done, or when only traces of the work were left to remove."""
    save_case(tmp_path / "in" / "a")
    arguments = ["convert", "folder", "-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1", "tumor=2"]
    assert main(arguments) == 0
    before = snapshot(raw)
    (raw / "Dataset007_in" / "records").mkdir()
    (raw / "Dataset007_in" / "request.json").write_text("{}")
    (raw / ".unfinished-Dataset007_in-replaced").mkdir()
    assert main(arguments) == 0
    assert "Dataset007_in: finished before" in capsys.readouterr().out
    assert snapshot(raw) == before
    assert sorted(path.name for path in raw.rglob("*") if path.is_dir()) == ["Dataset007_in", "imagesTr", "labelsTr"]
    os.utime(tmp_path / "in" / "a" / "labels.nii.gz", ns=(1, 1))
    assert main(arguments) == 2
    assert "Dataset007_in exists; choose another id" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    save_case(tmp_path / "in" / "b")
    assert main(arguments) == 2
    assert "Dataset007_in exists; choose another id" in capsys.readouterr().err


def test_a_replacement_that_was_killed_between_its_two_renames_is_gone_on_with(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a")
    dataset = convert(tmp_path / "in", 7, labels=LABELS)
    expected = snapshot(raw)
    shutil.copytree(dataset, raw / ".unfinished-Dataset007_in-replaced")
    convert(tmp_path / "in", 7, labels=LABELS, overwrite=True)
    assert snapshot(raw) == expected
    dataset.rename(raw / ".unfinished-Dataset007_in-replaced")
    convert(tmp_path / "in", 7, labels=LABELS, overwrite=True)
    assert snapshot(raw) == expected


def test_a_failed_replacement_leaves_the_old_dataset(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a")
    convert(tmp_path / "in", 7, labels=LABELS)
    before = snapshot(raw)
    with pytest.raises(InputError, match=r"no case is left for Dataset007_in, nothing was written\n  a: .*"):
        convert(tmp_path / "in", 7, labels={"liver": [5]}, ignore_other_labels=True, overwrite=True)
    assert snapshot(raw) == before
    assert [path.name for path in raw.iterdir()] == ["Dataset007_in"]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_an_id_that_belongs_to_another_name_is_refused_even_to_overwrite(
    tmp_path, raw, save_case, monkeypatch, variable
):
    save_case(tmp_path / "in" / "a")
    if variable != "nnUNet_raw":
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / variable / "Dataset007_Other").mkdir(parents=True)
    with pytest.raises(InputError, match="id 7 is taken by Dataset007_Other"):
        convert(tmp_path / "in", 7, labels=LABELS, overwrite=True)
    convert(tmp_path / "in", 70, labels=LABELS)


def test_without_nnunet_raw_the_export_line_is_given(tmp_path, raw, save_case, monkeypatch):
    save_case(tmp_path / "in" / "a")
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(InputError, match="export nnUNet_raw="):
        convert(tmp_path / "in", 7, labels=LABELS)


@pytest.mark.parametrize(("dataset_id", "name"), [(0, "A"), (1000, "A"), (7, "a__b"), (7, "a b"), (7, ""), (7, "../a")])
def test_ids_and_names_that_nnunet_cannot_use_are_refused(tmp_path, raw, save_case, dataset_id, name):
    save_case(tmp_path / "in" / "a")
    with pytest.raises(InputError, match=r"dataset (id|name)"):
        convert(tmp_path / "in", dataset_id, labels=LABELS, name=name)
    assert list(raw.iterdir()) == []


def test_axes_that_nnunets_reader_refuses_are_put_right_or_reject_the_case(tmp_path, raw, save_case, report_of):
    """Half a degree is little on a few voxels: nibabel takes it, ITK does not."""
    for case, shear in (("good", 0), ("little", 0.01), ("more", 0.014 * 3)):
        folder = save_case(tmp_path / "in" / case)
        for name in ("ct.nii.gz", "labels.nii.gz"):
            image = nib.load(folder / name)
            affine = image.affine.copy()
            affine[0, 1] = shear
            image = nib.Nifti1Image(np.asarray(image.dataobj), affine)
            image.header["qform_code"] = 0
            nib.save(image, folder / name)
    dataset = convert(tmp_path / "in", 7, labels=LABELS)
    report = report_of(dataset)
    assert "SimpleITK, refuses it" in report["cases"]["little"]["note"] and "note" not in report["cases"]["good"]
    assert "as from a tilted gantry" in report["rejected"]["more"]
    ours, source = (
        nib.load(path) for path in (dataset / "imagesTr/little_0000.nii.gz", tmp_path / "in/little/ct.nii.gz")
    )
    np.testing.assert_array_equal(ours.dataobj, source.dataobj)
    np.testing.assert_allclose(ours.affine, source.affine, atol=0.08)
    assert SimpleITK.ReadImage(str(dataset / "labelsTr/little.nii.gz")).GetSize() == (12, 10, 8)


RUN = """
import resource, signal, sys
from nnunet_difftumor.cli.main import main
if sys.argv[1] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
arguments = ["-d", "7", "--spacing", "6", "6", "6", "--cases", sys.argv[2], "--tumor-cases", "0"]
sys.exit(main(["convert", "phantom", *arguments]))
"""


def run(*arguments) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_leaves_no_dataset_and_says_that_the_command_goes_on(raw):
    process = run("limit", "2")
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 2, error
    assert "cannot be written" in error and "the same command resumes" in error
    assert [path.name for path in raw.iterdir()] == [".unfinished-Dataset007_Phantom"]
    assert [path for path in raw.rglob("*.nii.gz") if not path.name.startswith(".")] == []


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_conversion_leaves_no_dataset_and_goes_on_with_the_cases_that_are_done(raw, capsys):
    process = run("kill", "4")
    record = raw / ".unfinished-Dataset007_Phantom" / "records" / "phantom_001.json"
    while not record.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    assert not list(raw.glob("Dataset*"))
    unfinished = raw / ".unfinished-Dataset007_Phantom"
    (unfinished / "imagesTr" / ".tmp-1234-phantom_002_0000.nii.gz").write_bytes(b"left by the kill")
    made = (unfinished / "imagesTr" / "phantom_000_0000.nii.gz").stat().st_mtime_ns

    arguments = ["-d", "7", "--spacing", "6", "6", "6", "--cases", "4", "--tumor-cases", "0"]
    assert main(["convert", "phantom", *arguments]) == 0
    output = capsys.readouterr().out
    assert "[1/4] phantom_000: kept from the interrupted run" in output
    assert "[2/4] phantom_001: kept from the interrupted run" in output
    assert "[4/4] phantom_003: kept" not in output
    dataset = raw / "Dataset007_Phantom"
    assert [path.name for path in raw.iterdir()] == ["Dataset007_Phantom"]
    assert sorted(path.name for path in dataset.iterdir()) == [
        "conversion_report.json",
        "dataset.json",
        "imagesTr",
        "labelsTr",
    ]
    assert sorted(path.name for path in (dataset / "imagesTr").iterdir()) == [
        f"phantom_{number:03d}_0000.nii.gz" for number in range(4)
    ]
    assert (dataset / "imagesTr" / "phantom_000_0000.nii.gz").stat().st_mtime_ns == made
    report = json.loads((dataset / "conversion_report.json").read_text())
    again = convert_phantom(70, cases=4, tumor_cases=0, spacing_mm=(6, 6, 6))
    assert json.loads((again / "conversion_report.json").read_text()) == report


def interrupt(monkeypatch, at: str) -> None:
    """The user presses Ctrl-C while the case of this name is read."""

    def read(path, **options):
        if at in str(path):
            raise KeyboardInterrupt
        return read_ct(path, **options)

    monkeypatch.setattr("nnunet_difftumor.dataset_conversion.folder.read_ct", read)


def converted(output: str) -> list[str]:
    """Names of the cases that were converted, not kept."""
    return [line.split()[1][:-1] for line in output.splitlines() if "voxels of" in line]


def test_a_repeated_run_converts_again_only_what_has_changed(tmp_path, raw, save_case, monkeypatch, capsys):
    for case in "abcd":
        save_case(tmp_path / "in" / case)
    arguments = ["convert", "folder", "-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1", "tumor=2"]
    with monkeypatch.context() as patch:
        interrupt(patch, "/in/d/")
        assert main(arguments) == 130
    captured = capsys.readouterr()
    assert converted(captured.out) == ["a", "b", "c"]
    assert "the same command resumes where it stopped" in captured.err
    (tmp_path / "in/a/label_map.json").write_text('{"liver": [1, 2]}')
    shutil.rmtree(tmp_path / "in/b")
    assert main(arguments) == 0
    assert converted(capsys.readouterr().out) == ["a", "d"]
    dataset = raw / "Dataset007_in"
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == ["a.nii.gz", "c.nii.gz", "d.nii.gz"]
    assert set(np.unique(nib.load(dataset / "labelsTr/a.nii.gz").dataobj)) == {0, 1}


def test_other_settings_start_again(tmp_path, raw, save_case, monkeypatch, capsys):
    for case in "ab":
        save_case(tmp_path / "in" / case)
    with monkeypatch.context() as patch:
        interrupt(patch, "/in/b/")
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "in", 7, labels=LABELS)
    capsys.readouterr()
    convert(tmp_path / "in", 7, labels={"liver": [2], "tumor": [1]})
    assert converted(capsys.readouterr().out) == ["a", "b"]


def test_an_interrupted_replacement_leaves_the_old_dataset(tmp_path, raw, save_case, monkeypatch):
    for case in "ab":
        save_case(tmp_path / "in" / case)
    dataset = convert(tmp_path / "in", 7, labels=LABELS)
    before = snapshot(dataset)
    with monkeypatch.context() as patch:
        interrupt(patch, "/in/b/")
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "in", 7, labels={"liver": [1, 2]}, overwrite=True)
    assert snapshot(dataset) == before
    convert(tmp_path / "in", 7, labels={"liver": [1, 2]}, overwrite=True)
    assert snapshot(dataset) != before
    assert [path.name for path in raw.iterdir()] == ["Dataset007_in"]


def test_two_processes_do_not_make_one_dataset(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "a")
    with (
        only_writer(raw / "Dataset007_in"),
        pytest.raises(InputError, match="another process is writing there"),
    ):
        convert(tmp_path / "in", 7, labels=LABELS)


@pytest.mark.parametrize(
    ("affine", "shape", "unset"),
    [
        (np.eye(4), (60, 300, 300), True),
        (np.diag([-1.0, -1.0, 1.0, 1.0]), (60, 300, 300), True),
        ([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]], (60, 300, 300), True),
        ([[-1, 0, 0, 511], [0, -1, 0, 511], [0, 0, 1, 0], [0, 0, 0, 1]], (60, 512, 512), True),
        ([[-1, 0, 0, 150], [0, -1, 0, 150], [0, 0, 1, -400], [0, 0, 0, 1]], (60, 300, 300), False),
        (np.diag([0.7, 0.7, 1.0, 1.0]), (60, 512, 512), False),
        (np.diag([1.0, 1.0, 2.0, 1.0]), (60, 512, 512), False),
    ],
)
def test_headers_that_were_never_set_are_known_by_their_spacing_and_place(affine, shape, unset):
    assert is_header_unset(np.asarray(affine, float), shape) == unset
