"""Full disks, folders that cannot be, readers that leave, signals and second writers: one line, and nothing mixed."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny_networks

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.phantom import phantom_case

DIFFTUMOR = Path(sys.executable).with_name("difftumor")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A phantom, its organs, and weights."""
    folder = tmp_path_factory.mktemp("inputs")
    hu, labels = phantom_case([0, 0, 1], spacing_mm=(6.0, 5.0, 5.0))
    affine = np.diag([-5.0, -5.0, 6.0, 1.0])
    nib.save(nib.Nifti1Image(hu.T, affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(labels.T.astype(np.uint8), affine), folder / "labels.nii.gz")
    tiny_networks.write_weights(folder / "weights", "liver_early")
    (folder / "predicted").mkdir()
    values = np.random.default_rng(0).integers(0, 3, (12, 12, 12)).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), folder / "predicted" / "case.nii.gz")
    return folder


def commands(inputs: Path, output: Path) -> dict[str, list[str]]:
    """Of verbs that write, by name; each writes `output`, or into it."""
    ct, labels, weights = (str(inputs / name) for name in ("ct.nii.gz", "labels.nii.gz", "weights"))
    organ = ["--organ-mask", labels, "--organ-label", "1"]
    both = ["--organ-label", "1", "--tumor-label", "2"]
    return {
        "synthesize": ["synthesize", ct, *organ, "--organ", "liver", "-o", str(output)],
        "reconstruct": ["reconstruct", ct, *organ, "--weights", weights, "-o", str(output)],
        "import-weights": ["import-weights", f"{weights}/autoencoder.safetensors", "-o", str(output)],
        "preview": ["preview", "-d", "501", "-o", str(output)],
        "check": ["check", "-d", "501", "-np", "1", "-o", str(output / "findings.json")],
        "postprocess": ["postprocess", str(inputs / "predicted"), *both, "-o", str(output)],
        "bank": ["synthesize", "--bank", "-d", "501", "--per-case", "1", "-o", str(output)],
    }


VERBS = ("synthesize", "reconstruct", "import-weights", "preview", "check", "postprocess", "bank")


def lines_of(stderr: str) -> list[str]:
    """What a command said, without progress."""
    return [line for line in stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]


# The others take long before they write, or write less than that.
@pytest.mark.slow(file_seconds=60)
@pytest.mark.parametrize("verb", ["synthesize", "import-weights", "preview", "postprocess", "bank"])
def test_a_full_disk_is_one_line(prepared_phantom, inputs, tmp_path, verb):
    """No file can have more than 200 bytes, which fails as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    words = commands(inputs, tmp_path / "out")[verb]
    # Python itself would leave half a .pyc behind, on a full disk too.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [DIFFTUMOR, *words], capture_output=True, text=True, preexec_fn=limit, timeout=120, env=environment
    )
    (said,) = lines_of(done.stderr)
    assert done.returncode == 2 and str(tmp_path / "out") in said, done.stderr
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", ["a file lies there", "name too long", "link to itself"])
def test_a_folder_that_cannot_be_is_one_line(prepared_phantom, inputs, tmp_path, capsys, verb, fault):
    output = tmp_path / "there" / "out"
    if fault == "a file lies there":
        output.parent.write_text("")
    elif fault == "link to itself":
        output.parent.symlink_to(output.parent)
    else:
        output = tmp_path / ("n" * 300)
    assert main(commands(inputs, output)[verb]) == 2
    (said,) = lines_of(capsys.readouterr().err)
    assert str(output) in said or str(output.parent) in said


def test_no_right_to_write_is_one_line(inputs, tmp_path, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o555)
    assert main(commands(inputs, tmp_path / "closed" / "out")["synthesize"]) == 2
    assert "permission denied; name a file or folder" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(nnunet_folders):
    """As `difftumor convert phantom ... | head -1`."""
    words = ["convert", "phantom", "-d", "777", "--name", "Head", "--cases", "3", "--spacing", "6", "5", "5"]
    with subprocess.Popen([DIFFTUMOR, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.wait(), said) == (128 + 13, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_in_one_line_and_leaves_nothing_temporary(inputs, tmp_path, number):
    words = commands(inputs, tmp_path / "out")["synthesize"]
    for wait_s in (0.2, 1.0, 1.6):
        with subprocess.Popen([DIFFTUMOR, *words], stderr=subprocess.PIPE, text=True) as process:
            time.sleep(wait_s)
            process.send_signal(number)
            said = process.stderr.read()
        assert "Traceback" not in said and not list(tmp_path.rglob(".tmp-*")), said
        if process.returncode != 0:
            assert process.returncode in (128 + number, -number)
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


def test_the_second_of_two_writers_is_refused(inputs, tmp_path):
    words = [*commands(inputs, tmp_path / "out")["synthesize"], "--count", "3"]
    both = [subprocess.Popen([DIFFTUMOR, *words], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert "out: another process is writing there" in "".join(said)
