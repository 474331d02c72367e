"""Every fault once through `nnUNetv2_train` itself, and `--c` after it. `make test-faults` runs it; it is not in CI,
where tests/pipeline/test_live_faults.py has each three times at the level of loader and server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from live_training import processes_with, wait_until, write_settings
from stand_in_renderer import CONTROL, FAULTS

TESTS = Path(__file__).resolve().parents[1]
TRAINER = "nnUNetTrainerDiffTumorFaults"
pytestmark = [pytest.mark.slow(file_seconds=1500), pytest.mark.timeout(300)]


class Training:
    """An `nnUNetv2_train` that runs.

    Args:
        folder: for its output and for the switches of faults.
        options: of the command.
        fold: that is trained.
        environment: added to this process's.
    """

    def __init__(self, folder: Path, *options: str, fold: str = "0", **environment: str):
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.output = folder / f"output_{self.mark}.txt"
        paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | environment | {
            "DIFFTUMOR_TEST_MARK": self.mark,
            CONTROL: str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "nnUNet_extTrainer": str(TESTS / "faults" / "trainers"),
            "nnUNet_n_proc_DA": "2",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        command = [Path(sys.executable).parent / "nnUNetv2_train", "501", "3d_fullres", fold, "-tr", TRAINER]
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                [*command, "-p", "nnUNetPlansDiffTumor", "-device", "cpu", *options],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def reached(self, text: str, *, seconds: float = 120) -> None:
        """Waits until the training has said something."""
        assert wait_until(lambda: text in self.said or self.process.poll() is not None, seconds=seconds), self.said
        assert text in self.said, self.said

    def switch(self, fault: str, *, on: bool = True) -> None:
        assert fault in FAULTS
        (self.folder / fault).touch() if on else (self.folder / fault).unlink()

    def server(self) -> int:
        """The server's process."""
        return next(pid for pid in processes_with(self.mark) if b"live.server" in _command(pid))

    def worker(self) -> int:
        """A worker's process."""
        others = (b"live.server", b"resource_tracker")
        found = [pid for pid in processes_with(self.mark) if not any(name in _command(pid) for name in others)]
        return next(pid for pid in found if pid != self.process.pid)

    def ends(self, status: int | None = 0, *, seconds: float = 200) -> str:
        """Waits for its end, and that no process is left 10 s later; returns what it said."""
        assert wait_until(lambda: self.process.poll() is not None, seconds=seconds), self.said
        assert wait_until(lambda: not processes_with(self.mark), seconds=10), processes_with(self.mark)
        if status is not None:
            assert self.process.returncode == status, self.said
        return self.said


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def dataset(prepared_phantom, copy_of_prepared_phantom, tmp_path) -> Path:
    shutil.rmtree(prepared_phantom.results, ignore_errors=True)
    use(copy_of_prepared_phantom, tmp_path)
    return copy_of_prepared_phantom


def use(dataset: Path, folder: Path, **settings) -> None:
    """Writes the dataset's settings."""
    path = write_settings(dataset, folder / "settings", **settings)
    (dataset / "difftumor.json").write_text(path.read_text())


def shares(dataset_results: Path) -> list[float]:
    run = next(dataset_results.glob(f"{TRAINER}__*")) / "fold_0" / "synthesis_log"
    return [json.loads(file.read_text())["share"] for file in sorted(run.glob("epoch_*_rank_0.json"))]


def resumes(folder: Path) -> None:
    """`--c` resumes, or starts from scratch where there was no checkpoint, and trains to the end."""
    for fault in FAULTS:
        (folder / fault).unlink(missing_ok=True)
    said = Training(folder, "--c").ends()
    assert "Training done." in said


def test_killed_worker(dataset, tmp_path):
    training = Training(tmp_path)
    training.reached("Epoch 2")
    os.kill(training.worker(), signal.SIGKILL)
    said = training.ends(1)
    assert said.strip().splitlines()[-1].startswith("RuntimeError: One or more background workers are no longer alive")
    resumes(tmp_path)


def test_killed_server(dataset, tmp_path, prepared_phantom):
    training = Training(tmp_path)
    training.reached("Epoch 2")
    os.kill(training.server(), signal.SIGKILL)
    said = training.ends()
    assert "Training done." in said and "1 restarts" in said and "Refused: " not in said.partition("live:")[0]
    assert min(shares(prepared_phantom.results)) > 0.3
    resumes(tmp_path)


def test_lost_gpu(dataset, tmp_path, prepared_phantom):
    training = Training(tmp_path)
    training.reached("Epoch 1")
    training.switch("lost_gpu")
    said = training.ends()
    assert "Training done." in said and "1 restarts" in said
    assert min(shares(prepared_phantom.results)) > 0.3
    resumes(tmp_path)


def test_server_killed_again_and_again(dataset, tmp_path):
    training = Training(tmp_path)
    training.reached("Epoch 1")
    training.switch("crash")
    said = training.ends(1)
    assert "TooFewSyntheticSamplesError" in said and "the synthesis server ended with status 9" in said
    resumes(tmp_path)


def test_server_killed_during_its_start(dataset, tmp_path):
    (tmp_path / "slow_start").touch()
    training = Training(tmp_path)
    assert wait_until(lambda: any(b"live.server" in _command(pid) for pid in processes_with(training.mark)), seconds=90)
    time.sleep(0.3)
    os.kill(training.server(), signal.SIGKILL)
    assert "InputError: the synthesis server could not be started: exit status -9" in training.ends(1)
    resumes(tmp_path)


def test_killed_trainer(dataset, tmp_path):
    training = Training(tmp_path)
    training.reached("Epoch 2")
    training.process.kill()
    training.ends(-9)
    resumes(tmp_path)


def test_server_that_hangs(dataset, tmp_path):
    training = Training(tmp_path)
    training.reached("Epoch 1")
    first = training.server()
    training.switch("hang")
    assert wait_until(lambda: first not in processes_with(training.mark), seconds=60)
    training.switch("hang", on=False)
    said = training.ends()
    assert "Training done." in said and "1 restarts" in said
    resumes(tmp_path)


def test_slow_server(dataset, tmp_path):
    use(dataset, tmp_path, live={"timeout_s": 0.2})
    said = Training(tmp_path, DIFFTUMOR_TEST_SLEEP_S="1.5").ends(1)
    assert "TooFewSyntheticSamplesError" in said and "live: no answer within 0.2 s" in said
    use(dataset, tmp_path)
    resumes(tmp_path)


def test_too_little_memory(dataset, tmp_path):
    training = Training(tmp_path)
    training.reached("Epoch 1")
    training.switch("memory")
    said = training.ends(1)
    assert "TooFewSyntheticSamplesError" in said and "the GPU's memory is too small" in said
    resumes(tmp_path)


def test_too_little_memory_for_batches(dataset, tmp_path, prepared_phantom):
    (tmp_path / "memory_of_batches").touch()
    use(dataset, tmp_path, live={"batch_size": 8, "batch_wait_ms": 50})
    said = Training(tmp_path).ends()
    assert "Training done." in said
    assert min(shares(prepared_phantom.results)) > 0.3
    use(dataset, tmp_path)
    resumes(tmp_path)


def test_deleted_weights(dataset, tmp_path):
    training = Training(tmp_path)
    training.reached("Epoch 1")
    training.switch("no_weights")
    os.kill(training.server(), signal.SIGKILL)
    said = training.ends(1)
    assert "TooFewSyntheticSamplesError" in said and "could not be started again (weights: liver_early" in said
    resumes(tmp_path)


def _delete(bank: Path) -> None:
    shutil.rmtree(bank)


def _truncate(bank: Path) -> None:
    for file in bank.rglob("*.npz"):
        os.truncate(file, file.stat().st_size // 2)


def _garble(bank: Path) -> None:
    for file in bank.rglob("*.npz"):
        file.write_bytes(os.urandom(300))


@pytest.mark.parametrize("damage", [_delete, _truncate, _garble])
def test_damaged_bank(dataset, tmp_path, damage: Callable[[Path], None]):
    bank = tmp_path / "bank"
    use(dataset, tmp_path, live={"ring": 4}, bank_folder=str(bank))
    assert "Training done." in Training(tmp_path).ends()
    assert list(bank.rglob("*.npz"))
    kept = shutil.copytree(bank, tmp_path / "kept")
    use(dataset, tmp_path, source="bank", bank_folder=str(bank))
    training = Training(tmp_path)
    training.reached("Epoch 1")
    damage(bank)
    said = training.ends(1)
    assert "TooFewSyntheticSamplesError" in said and "bank: " in said
    shutil.rmtree(bank, ignore_errors=True)
    shutil.move(kept, bank)
    resumes(tmp_path)


def test_full_disk_under_the_ring(dataset, tmp_path):
    bank = tmp_path / "bank"
    use(dataset, tmp_path, live={"ring": 4}, bank_folder=str(bank))
    (tmp_path / "full_disk").touch()
    said = Training(tmp_path).ends()
    assert "Training done." in said and "could not be written to the ring" in said
    assert not list(bank.rglob("*.npz"))
    resumes(tmp_path)


def test_clock_that_jumps(dataset, tmp_path):
    (tmp_path / "clock").touch()
    assert "Training done." in Training(tmp_path).ends()
    resumes(tmp_path)


def test_two_trainings_at_once(dataset, tmp_path):
    """Of two folds: two of one fold write into one folder, with nnU-Net's own trainers too."""
    first, second = Training(tmp_path), Training(tmp_path, fold="1")
    assert "Training done." in first.ends() and "Training done." in second.ends()
    resumes(tmp_path)


def test_long_name_of_the_temporary_folder(dataset, tmp_path):
    # The longest that torch's own sockets still take.
    room = 100 - len(str(tmp_path)) - len("/pymp-xxxxxxxx/listener-xxxxxxxx") - 1
    long = tmp_path / ("x" * max(room, 1))
    long.mkdir()
    assert "Training done." in Training(tmp_path, TMPDIR=str(long)).ends()
    resumes(tmp_path)
