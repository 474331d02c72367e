import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.folder import convert
from nnunet_difftumor.errors import InputError

LABELS = {"liver": [1], "tumor": [2]}


def snapshot(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_dataset_passes_nnunets_own_verification(tmp_path, raw, save_case):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    for case in ("a", "b", "healthy"):
        save_case(tmp_path / "in" / case, values=(1,) if case == "healthy" else (1, 2))
    verify_dataset_integrity(str(convert(tmp_path / "in", 7, labels=LABELS)), num_processes=1)


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


def test_a_header_that_nnunets_reader_refuses_rejects_the_case(tmp_path, raw, save_case):
    save_case(tmp_path / "in" / "good")
    folder = save_case(tmp_path / "in" / "skewed")
    for name in ("ct.nii.gz", "labels.nii.gz"):
        image = nib.load(folder / name)
        affine = image.affine.copy()
        affine[0, 1] = 0.01  # half a degree: nibabel takes it, ITK does not
        image = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        image.header["qform_code"] = 0
        nib.save(image, folder / name)
    dataset = convert(tmp_path / "in", 7, labels=LABELS)
    assert [path.name for path in (dataset / "imagesTr").iterdir()] == ["good_0000.nii.gz"]
    assert "SimpleITK, refuses it" in (dataset / "conversion_report.json").read_text()


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
def test_a_full_disk_leaves_nothing(raw):
    process = run("limit", "2")
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 2, error
    assert "cannot be written" in error
    assert list(raw.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_conversion_leaves_no_dataset(raw):
    process = run("kill", "100")
    while not list(raw.glob(".tmp-*/imagesTr/phantom_000_0000.nii.gz")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    assert not list(raw.glob("Dataset*"))
