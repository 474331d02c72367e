"""Outputs appear whole or not at all."""

import json
import os
import subprocess
import sys

import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_folder, atomic_path, only_writer, write_json, write_json_once


def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses to flush others."""
    written = []
    # Writing nothing fails where the handle is for reading only.
    monkeypatch.setattr(os, "fsync", lambda number: written.append(os.write(number, b"")))
    write_json(tmp_path / "new" / "file.json", {"a": 1})
    assert written == [0]
    assert (tmp_path / "new" / "file.json").read_text() == '{\n  "a": 1\n}\n'


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]


def run_and_kill(code: str) -> None:
    """Runs Python code until it says so, and kills the process."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        process.kill()


@pytest.mark.parametrize(("maker", "name"), [("atomic_path", "scan [1].nii.gz"), ("atomic_folder", "model")])
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, maker, name):
    path = tmp_path / name
    code = f"""
from nnunet_difftumor.files import {maker}
import time
with {maker}({str(path)!r}) as temporary:
    (temporary / "part" if temporary.is_dir() else temporary).write_text("half of it")
    print("now", flush=True)
    time.sleep(60)
"""
    run_and_kill(code)
    assert [file.name[:5] for file in tmp_path.iterdir()] == [".tmp-"]
    with {"atomic_path": atomic_path, "atomic_folder": atomic_folder}[maker](path) as temporary:
        (temporary / "part" if temporary.is_dir() else temporary).write_text("all of it")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_another_process_is_writing_stays(tmp_path):
    with atomic_path(tmp_path / "a.txt") as first:
        first.write_text("first")
        code = f"from nnunet_difftumor.files import write_json; write_json({str(tmp_path / 'a.txt')!r}, [2])"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert json.loads((tmp_path / "a.txt").read_text()) == [2] and first.read_text() == "first"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "first")]


def test_files_have_the_rights_that_the_user_gives_to_all_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_written_once_stays(tmp_path):
    write_json_once(tmp_path / "a.json", 1)
    write_json_once(tmp_path / "a.json", 2)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "1\n")]


def test_one_of_two_writers_is_refused_and_none_after_the_first_has_gone(tmp_path):
    code = f"""
from nnunet_difftumor.files import only_writer
import time
with only_writer({str(tmp_path / "out")!r}):
    print("now", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        with pytest.raises(InputError, match="out: another process is writing there"), only_writer(tmp_path / "out"):
            pass
        process.kill()
    with only_writer(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from nnunet_difftumor.files import DiskError, atomic_path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with atomic_path(Path(sys.argv[1]) / "weights.bin") as path:
        values = np.random.default_rng(0).standard_normal(100_000)
        WRITE
except DiskError as error:
    print(error, [file.name for file in Path(sys.argv[1]).iterdir()])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
@pytest.mark.parametrize(
    "write",
    [
        "import torch; torch.save(torch.from_numpy(values), path)",
        "from safetensors.numpy import save_file; save_file({'a': values}, path)",
        "import blosc2; path.unlink(); blosc2.asarray(values, urlpath=str(path))",
        "path.write_bytes(values.tobytes())",
    ],
    ids=["torch", "safetensors", "blosc2", "Python"],
)
def test_a_full_disk_is_the_disk_s_error_whoever_writes(tmp_path, write):
    words = [sys.executable, "-c", FULL.replace("WRITE", write), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno 27] File too large: '{tmp_path / 'weights.bin'}' []\n"


def test_an_error_of_a_library_on_a_good_disk_stays_what_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a"):
        _ = 1 / 0
