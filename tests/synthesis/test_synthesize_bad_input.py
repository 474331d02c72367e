import os
import re
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from scans import RAS, body, command, content, files_below, save

from nnunet_difftumor.cli.main import main


def bad_inputs():
    """Name, what is done to the files, options, and what the message says."""
    hu, labels = body((20, 20, 20), radius_mm=16.0)

    def mask_of(array, **changes):
        return lambda case: save(case / "liver.nii.gz", array, **({"dtype": np.uint8} | changes))

    def ct_of(array, **changes):
        return lambda case: save(case / "ct.nii.gz", array, **changes)

    def rgb(case):
        dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(np.zeros((20, 20, 20), dtype), RAS), case / "ct.nii.gz")

    def truncated(case):
        path = case / "ct.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])

    def with_value(value):
        changed = hu.copy()
        changed[5, 5, 5] = value
        return changed

    moved = RAS.copy()
    moved[0, 3] = 3.0
    half = np.zeros(hu.shape, np.uint8)
    tiny_organ = half.copy()
    tiny_organ[10, 10, 10] = 1
    yield "missing CT", lambda case: (case / "ct.nii.gz").unlink(), [], r"ct\.nii\.gz: no such file"
    yield "missing mask", lambda case: (case / "liver.nii.gz").unlink(), [], r"liver\.nii\.gz: no such file"
    yield "no NIfTI", lambda case: (case / "ct.nii.gz").write_bytes(b"x" * 99), [], r"ct\.nii\.gz: cannot be read"
    yield "truncated", truncated, [], r"ct\.nii\.gz: cannot be read"
    yield "other shape", mask_of(labels[:-1] == 1), [], r"liver\.nii\.gz: \(19, 20, 20\) voxels"
    yield "other affine", mask_of(labels == 1, affine=moved), [], r"liver\.nii\.gz: lies up to 3 mm away"
    yield "empty mask", mask_of(half), [], r"liver\.nii\.gz: the organ mask is empty"
    yield "organ too small", mask_of(tiny_organ), ["--size", "small"], r"liver\.nii\.gz: no tumor fits .*small: "
    yield "large in small", mask_of(labels == 1), ["--size", "large"], r"liver\.nii\.gz: no tumor fits .*large: "
    yield "ambiguous labels", mask_of(labels), [], r"liver\.nii\.gz: holds the labels \[1, 3\]; say with --organ-label"
    yield "absent label", mask_of(labels), ["--organ-label", 7], r"no voxel has the organ label \[7\]; .* \[1, 3\]"
    yield "label 0", mask_of(labels), ["--organ-label", 0], "--organ-label is .*expected values from 1"
    yield "tumor on organ", mask_of(labels), ["--organ-label", 1, "--tumor-label", 1], "--tumor-label is 1"
    yield "tumor on spleen", mask_of(labels), ["--organ-label", 1, "--tumor-label", 3], "label 3 is already in the mask"
    yield "tumor label", mask_of(labels == 1), ["--tumor-label", 40000], "--tumor-label is 40000"
    yield (
        "no label map",
        mask_of(labels * 0.5, dtype=np.float32),
        [],
        r"liver\.nii\.gz: a label map holds whole numbers",
    )
    yield "grey values", ct_of(np.clip((hu + 175) * 0.6, 0, 255)), [], r"ct\.nii\.gz: the values run from 0 to"
    yield "z-scored", ct_of((hu - hu.mean()) / hu.std(), dtype=np.float32), [], r"ct\.nii\.gz: the values run from"
    yield "4D", ct_of(np.stack([hu, hu], 3)), [], r"ct\.nii\.gz: expected a three-dimensional image"
    yield "RGB", rgb, [], r"ct\.nii\.gz: voxels are of type"
    yield "NaN", ct_of(with_value(np.nan), dtype=np.float32), [], r"ct\.nii\.gz: 1 voxels are NaN or infinite"
    yield "inf", ct_of(with_value(np.inf), dtype=np.float32), [], r"ct\.nii\.gz: 1 voxels are NaN or infinite"
    yield "micrometres", ct_of(hu, affine=np.diag([2000, 2000, 2500, 1])), [], r"ct\.nii\.gz: the spacing is 2000"
    yield "metres", ct_of(hu, affine=np.diag([0.002, 0.002, 0.0025, 1])), [], r"ct\.nii\.gz: the spacing is 0\.002"
    yield "one slice", ct_of(hu[..., :1]), [], r"ct\.nii\.gz: \(20, 20, 1\) voxels"
    yield "count", lambda case: None, ["--count", 0], "--count is 0, expected at least 1"
    yield "seed", lambda case: None, ["--seed", -1], "--seed is -1, expected at least 0"
    yield "contrast", lambda case: None, ["--contrast-hu", -10, -40], "--contrast-hu is"


@pytest.mark.parametrize(
    ("spoil", "options", "message"), [pytest.param(*rest, id=name) for name, *rest in bad_inputs()]
)
def test_bad_input_is_refused_with_the_file_and_nothing_is_written(tmp_path, capsys, spoil, options, message):
    hu, labels = body((20, 20, 20), radius_mm=16.0)
    save(tmp_path / "case" / "ct.nii.gz", hu)
    save(tmp_path / "case" / "liver.nii.gz", labels == 1, dtype=np.uint8)
    spoil(tmp_path / "case")
    assert main(command(tmp_path / "case", tmp_path / "out", *options)) == 2
    error = capsys.readouterr().err
    assert error.startswith("difftumor synthesize: ")
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error
    assert files_below(tmp_path) == {f"case/{path.name}" for path in (tmp_path / "case").iterdir()}


def process(*arguments, before="") -> subprocess.Popen:
    code = f"import sys\n{before}\nfrom nnunet_difftumor.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_leaves_only_whole_files(tmp_path):
    hu, labels = body((30, 30, 26), radius_mm=24.0)
    save(tmp_path / "case" / "ct.nii.gz", hu)
    save(tmp_path / "case" / "liver.nii.gz", labels == 1, dtype=np.uint8)
    case, whole = tmp_path / "case", tmp_path / "whole"
    assert main(command(case, whole, "--size", "tiny")) == 0
    expected = content(whole)
    sizes = {name: len(data) for name, data in expected.items()}
    assert sizes["preview.png"] > sizes["ct.nii.gz"] > 20_000
    # Too little for the scan; enough for it, but not for the picture.
    for limit, missing in ((20_000, "ct.nii.gz"), (sizes["ct.nii.gz"] + 100, "preview.png")):
        out = tmp_path / f"out_{limit}"
        limiting = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
        running = process(*command(case, out, "--size", "tiny"), before=limiting)
        _, error = running.communicate(timeout=120)
        assert running.returncode == 2, error
        assert "cannot be written" in error and str(out) in error
        left = content(out)
        assert missing not in left and "manifest.json" not in left
        assert left.items() <= expected.items(), "whole files under their names, and nothing else"
        assert main(command(case, out, "--size", "tiny")) == 0
        assert content(out) == expected


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_process_leaves_no_half_written_file(tmp_path):
    hu, labels = body((150, 150, 60))
    save(tmp_path / "ct.nii.gz", hu)
    save(tmp_path / "liver.nii.gz", labels == 1, dtype=np.uint8)
    out = tmp_path / "out"
    running = process(*command(tmp_path, out, "--size", "tiny", "--count", 1))
    deadline = time.monotonic() + 120
    while not list(out.glob(".tmp-*")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL
    assert files_below(out), "killed too early to test anything"
    assert all(name.startswith(".tmp-") for name in files_below(out))
    assert main(command(tmp_path, out, "--size", "tiny", "--count", 1)) == 0
    whole = tmp_path / "whole"
    assert main(command(tmp_path, whole, "--size", "tiny", "--count", 1)) == 0
    assert {name: data for name, data in content(out).items() if not name.startswith(".tmp-")} == content(whole)
