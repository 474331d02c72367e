"""Full disks, folders that cannot be, readers that leave, signals and second writers: one line, and nothing mixed."""

import ctypes
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands_that_write import DIFFTUMOR, commands, make_inputs, make_run
from folder_contents import contents, differences, hidden

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.files import only_writer

VERBS = ("synthesize", "reconstruct", "import-weights", "preview", "check", "postprocess", "bank")
# As they are named in `commands`; those that are quick, before they write, and the others.
QUICK = ("synthesize", "import-weights", "convert", "export", "evaluate", "postprocess", "demo")
OTHERS = (
    *("synthesize folder", "reconstruct", "preview", "check", "bank", "prepare", "preprocess-generative", "replay"),
    *("train-autoencoder", "train-diffusion"),
)
ALL = [*QUICK, *(pytest.param(verb, marks=pytest.mark.long) for verb in OTHERS)]


@pytest.fixture(scope="module")
def inputs(prepared_phantom, tmp_path_factory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    make_run(folder / "run", prepared_phantom.preprocessed)
    return folder


def lines_of(stderr: str) -> list[str]:
    """What a command said, without progress."""
    return [line for line in stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]


def one_line_of(words: list[str], environment: dict[str, str], **process) -> str:
    """What a command says that ends with status 2."""
    done = subprocess.run([DIFFTUMOR, *words], capture_output=True, text=True, timeout=800, env=environment, **process)
    said = lines_of(done.stderr)
    assert done.returncode == 2 and len(said) == 1, done.stderr
    return said[0]


def run_with_one_line(verb: str, inputs: Path, output: Path, **process) -> str:
    """Runs a verb that is to fail; nothing temporary is left."""
    command = commands(inputs, output)[verb]
    said = one_line_of(command.words, command.environment, **process)
    assert str(output) in said, said
    # A conversion resumes from there.
    assert {Path(name).name for name in hidden(output.parent)} <= {".unfinished-Dataset701_Phantom"}
    return said


@pytest.mark.slow(file_seconds=60)
@pytest.mark.parametrize("verb", ALL)
def test_a_full_disk_is_one_line(inputs, tmp_path, verb):
    """No file can have more than 200 bytes, which fails as a full disk does."""
    if verb == "check":
        pytest.skip("its findings of a good dataset are shorter")
    if commands(inputs, tmp_path / "out")[verb].variables:
        (tmp_path / "out").mkdir()
    run_with_one_line(
        verb, inputs, tmp_path / "out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    )


@pytest.mark.parametrize("verb", ALL)
def test_no_right_to_write_is_one_line(inputs, tmp_path, verb):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    said = run_with_one_line(verb, inputs, place_in(closed, verb, inputs), preexec_fn=_obey_rights)
    assert "ermission denied" in said
    assert not list(closed.iterdir())


def place_in(folder: Path, verb: str, inputs: Path) -> Path:
    """A new folder in it; nnU-Net's own folders are there."""
    return folder if str(folder) in commands(inputs, folder)[verb].variables.values() else folder / "out"


def _obey_rights() -> None:
    """Root's right to write everywhere is given up, for whatever is executed then."""
    pr_capbset_drop, cap_dac_override = 24, 1
    ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """64 KB of memory as a file system."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True).returncode:
        pytest.skip("only root can mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.long
@pytest.mark.parametrize("verb", [*QUICK, *OTHERS])
def test_a_disk_without_a_free_byte_is_one_line(inputs, tmp_path, verb):
    with small_disk(tmp_path / "disk") as disk:
        (disk / "filled").write_bytes(bytes(64 * 1024))
        run_with_one_line(verb, inputs, place_in(disk, verb, inputs))
        # What nnU-Net says, and the lock of a training, are there while they are empty.
        left = [path for path in disk.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock")]
        assert [path.name for path in left] == ["filled"]


@pytest.mark.long
@pytest.mark.parametrize("verb", [*QUICK, *OTHERS])
def test_a_disk_that_is_only_for_reading_is_one_line(inputs, tmp_path, verb):
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        said = run_with_one_line(verb, inputs, place_in(disk, verb, inputs))
        assert "ead-only file system" in said


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
    assert main(commands(inputs, output)[verb].words) == 2
    (said,) = lines_of(capsys.readouterr().err)
    assert str(output) in said or str(output.parent) in said


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
    words = commands(inputs, tmp_path / "out")["synthesize"].words
    for wait_s in (0.2, 1.0, 1.6):
        with subprocess.Popen([DIFFTUMOR, *words], stderr=subprocess.PIPE, text=True) as process:
            time.sleep(wait_s)
            process.send_signal(number)
            said = process.stderr.read()
        assert "Traceback" not in said and not list(tmp_path.rglob(".tmp-*")), said
        if process.returncode != 0:
            assert process.returncode in (128 + number, -number)
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


# A bank may have any number of writers; `evaluate` and `check` write one file, whole; trainings are in `generative`.
ONE_WRITER = (
    *("synthesize", "synthesize folder", "import-weights", "convert", "export", "demo", "reconstruct", "preview"),
    *("prepare", "preprocess-generative", "replay"),
)


@pytest.mark.parametrize("verb", ONE_WRITER)
def test_a_folder_that_another_process_is_writing_is_refused(inputs, tmp_path, monkeypatch, capsys, verb):
    output, command = tmp_path / "out", commands(inputs, tmp_path / "out")[verb]
    for name, value in command.variables.items():
        monkeypatch.setenv(name, value)
    inside = {"convert": "Dataset701_Phantom", "prepare": "Dataset702_Small"}
    inside["preprocess-generative"] = "Dataset702_Small/generative"
    if verb in inside:
        output.mkdir()
    with only_writer(output / inside.get(verb, "")):
        before = sorted(tmp_path.rglob("*"))
        assert main(command.words) == 2
        assert sorted(tmp_path.rglob("*")) == before
    (said,) = lines_of(capsys.readouterr().err)
    assert "another process is writing there" in said


@pytest.mark.parametrize("verb", ["synthesize", *(pytest.param(verb, marks=pytest.mark.long) for verb in ("prepare",))])
def test_what_two_writers_leave_is_what_one_of_them_alone_would_have_written(inputs, tmp_path, verb):
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        place = folder / "out"
        (place if commands(inputs, place)[verb].variables else folder).mkdir(parents=True)
    command = commands(inputs, alone / "out")[verb]
    subprocess.run([DIFFTUMOR, *command.words], env=command.environment, check=True)
    command = commands(inputs, together / "out")[verb]
    both = [
        subprocess.Popen([DIFFTUMOR, *command.words], env=command.environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert "another process is writing there" in "".join(said)
    assert not differences(contents(alone), contents(together)) and not hidden(together)
