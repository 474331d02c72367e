"""Whatever happens to server, workers, trainer, files and clock: training continues with what there is, or stops with
one clear sentence; it never hangs, never trains on a wrong label, and leaves no process."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import stand_in_renderer
from live_training import (
    consistent,
    drawn,
    loader_of,
    make_trainer,
    processes_with,
    samples_of,
    voxels,
    wait_until,
    write_settings,
)

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.live import address as address_module
from nnunet_difftumor.pipeline.live import ring as ring_module
from nnunet_difftumor.pipeline.live import server_keeper as keeper_module
from nnunet_difftumor.pipeline.live import synthesis as synthesis_module
from nnunet_difftumor.runs.recorder import SynthesisRecorder, TooFewSyntheticSamplesError
from nnunet_difftumor.runs.synthesis_log import read_log, summary_path

pytestmark = [pytest.mark.slow(file_seconds=90), pytest.mark.timeout(120)]
# A fault that hits at another moment does so by chance: the second and third time are for `make test-long`.
THREE_TIMES = pytest.mark.parametrize(
    "repetition", [0, *(pytest.param(number, marks=pytest.mark.long) for number in (1, 2))]
)


class Run:
    """A training's loaders with a server of stand-ins, and the faults that can be switched on."""

    def __init__(self, dataset, folder: Path, monkeypatch):
        self.dataset, self.folder = dataset.preprocessed, folder
        self.control = folder / "control"
        self.control.mkdir()
        monkeypatch.setenv(stand_in_renderer.CONTROL, str(self.control))
        monkeypatch.setenv("nnUNet_n_proc_DA", "2")
        monkeypatch.setattr(synthesis_module, "FACTORY", stand_in_renderer.FACTORY)
        self.monkeypatch = monkeypatch

    def trainer(self, *, epoch: int = 0, live: dict | None = None, **changes):
        settings = write_settings(self.dataset, self.folder / "settings", live=live, **changes)
        return make_trainer(self.dataset, settings, epoch=epoch)

    def loader(self, trainer):
        return loader_of(trainer, self.folder / "log")

    def switch(self, fault: str, *, on: bool = True) -> None:
        assert fault in stand_in_renderer.FAULTS
        (self.control / fault).touch() if on else (self.control / fault).unlink()

    def resumes(self, repetition: int) -> None:
        """A later epoch begins where it should, with tumors."""
        if repetition:
            return
        for fault in self.control.iterdir():
            fault.unlink()
        trainer = self.trainer(epoch=2)
        with self.loader(trainer) as loader:
            batches = [next(loader) for _ in range(2)]
        first = 2 * trainer.num_iterations_per_epoch
        assert [batch["index"] for batch in batches] == [first + 1, first + 2]
        assert all(sample["in_target"] for sample in samples_of(batches))


@pytest.fixture
def run(prepared_phantom, tmp_path, monkeypatch) -> Run:
    return Run(prepared_phantom, tmp_path, monkeypatch)


def refusals(batches) -> list[str]:
    return [reason for sample in samples_of(batches) for reason in sample["refused"] if reason.startswith("live")]


def take(loader, count: int) -> list[dict]:
    batches = [next(loader) for _ in range(count)]
    assert all(consistent(batch) for batch in batches)
    return batches


@THREE_TIMES
def test_killed_worker_ends_training_with_one_sentence_and_leaves_nothing(run, repetition):
    mark = uuid.uuid4().hex
    run.monkeypatch.setenv("DIFFTUMOR_TEST_MARK", mark)
    with (
        pytest.raises(RuntimeError, match="background workers are no longer alive"),
        run.loader(run.trainer()) as loader,
    ):
        take(loader, 2)
        os.kill(loader._processes[0].pid, signal.SIGKILL)
        take(loader, 100)
    assert wait_until(lambda: not processes_with(mark), seconds=10)
    run.resumes(repetition)


@THREE_TIMES
def test_server_that_lost_its_gpu_is_replaced(run, repetition):
    trainer = run.trainer()
    with run.loader(trainer) as loader:
        batches = take(loader, 2)
        run.switch("lost_gpu")
        batches += take(loader, 12)
        assert wait_until(lambda: trainer.synthesis.live.keeper.restarts == 1, seconds=20)
    assert not refusals(batches) and all(sample["in_target"] for sample in samples_of(batches))
    assert "an illegal memory access" in (run.folder / "log" / "server_rank_0.log").read_text()
    run.resumes(repetition)


@THREE_TIMES
def test_killed_server_comes_back(run, repetition):
    trainer = run.trainer()
    with run.loader(trainer) as loader:
        batches = take(loader, 4)
        os.kill(trainer.synthesis.live.keeper.process.pid, signal.SIGKILL)
        batches += take(loader, 12)
        assert wait_until(lambda: trainer.synthesis.live.keeper.status()["state"] == "running", seconds=20)
        assert trainer.synthesis.live.keeper.restarts == 1
    # What was asked of the dead one was asked again.
    assert not refusals(batches) and all(sample["in_target"] for sample in samples_of(batches))
    run.resumes(repetition)


@THREE_TIMES
def test_server_that_always_dies_is_given_up_and_training_stops_with_a_sentence(run, repetition):
    run.monkeypatch.setattr(keeper_module, "_LOOK_S", 0.01)
    run.monkeypatch.setattr(keeper_module, "_RESTARTS", 2)
    trainer = run.trainer()
    with run.loader(trainer) as loader:
        run.switch("crash")
        recorder = SynthesisRecorder.of(
            trainer.synthesis, run.folder / "run", rank=0, roles=trainer.roles(), batches_per_epoch=8
        )
        with pytest.raises(TooFewSyntheticSamplesError, match=r"live: no answer: the synthesis server ended with stat"):
            for epoch in range(4):
                for batch in take(loader, 8):
                    recorder.add(batch, epoch=0)
                recorder.finish_epoch(epoch, server=trainer.synthesis.live.keeper.status())
        assert trainer.synthesis.live.keeper.status()["state"] == "gone"
    run.resumes(repetition)


@THREE_TIMES
def test_server_killed_during_its_start_stops_training_before_it_begins(run, repetition):
    run.switch("crash_at_start")
    with pytest.raises(InputError, match="the synthesis server could not be started"), run.loader(run.trainer()):
        pass
    run.resumes(repetition)


@THREE_TIMES
def test_server_killed_during_a_later_start_comes_back(run, repetition):
    trainer = run.trainer()
    keeper_of = trainer.synthesis.live
    with run.loader(trainer) as loader:
        take(loader, 2)
        run.switch("slow_start")
        first = keeper_of.keeper.process
        first.kill()
        assert wait_until(lambda: keeper_of.keeper.process is not first, seconds=10)
        keeper_of.keeper.process.kill()
        run.switch("slow_start", on=False)
        batches = take(loader, 12)
        assert keeper_of.keeper.restarts == 2
    assert not refusals(batches)
    run.resumes(repetition)


_TRAINING = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from live_training import loader_of, make_trainer
from nnunet_difftumor.pipeline.live import synthesis
synthesis.FACTORY = "stand_in_renderer:make"
if __name__ == "__main__":
    with loader_of(make_trainer(Path({dataset!r}), Path({settings!r})), Path({log!r})) as loader:
        next(loader)
        print("TRAINING", flush=True)
        while True:
            time.sleep(0.05)
            next(loader)
"""


@THREE_TIMES
def test_killed_trainer_leaves_no_process(run, repetition):
    mark = uuid.uuid4().hex
    settings = write_settings(run.dataset, run.folder / "settings")
    script = run.folder / "train.py"
    path = [entry for entry in sys.path if entry]
    script.write_text(
        _TRAINING.format(path=path, dataset=str(run.dataset), settings=str(settings), log=str(run.folder / "log"))
    )
    environment = os.environ | {"DIFFTUMOR_TEST_MARK": mark}
    with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as trainer:
        assert any("TRAINING" in line for line in trainer.stdout)
        assert len(processes_with(mark)) >= 5  # trainer, server, two workers, and validation's
        trainer.kill()
        assert wait_until(lambda: not processes_with(mark), seconds=10)
    run.resumes(repetition)


@THREE_TIMES
def test_server_that_hangs_is_replaced(run, repetition):
    run.monkeypatch.setattr(synthesis_module, "hang_s", lambda settings: 1.0)
    trainer = run.trainer()
    with run.loader(trainer) as loader:
        take(loader, 2)
        stuck = trainer.synthesis.live.keeper.process
        run.switch("hang")
        assert wait_until(lambda: trainer.synthesis.live.keeper.process is not stuck, seconds=20)
        run.switch("hang", on=False)
        batches = take(loader, 16)
    assert all(sample["in_target"] for sample in samples_of(batches)[-6:])
    run.resumes(repetition)


@THREE_TIMES
def test_stopped_server_costs_tumors_and_no_more(run, repetition):
    trainer = run.trainer(live={"timeout_s": 0.15})
    with run.loader(trainer) as loader:
        take(loader, 2)
        os.kill(trainer.synthesis.live.keeper.process.pid, signal.SIGSTOP)
        start = time.monotonic()
        batches = take(loader, 8)
        assert time.monotonic() - start < 60
        os.kill(trainer.synthesis.live.keeper.process.pid, signal.SIGCONT)
    assert "live: no answer within 0.15 s" in refusals(batches)
    run.resumes(repetition)


@THREE_TIMES
def test_slow_server_costs_tumors_and_no_more(run, repetition):
    run.monkeypatch.setenv("DIFFTUMOR_TEST_SLEEP_S", "1.0")
    with run.loader(run.trainer(live={"timeout_s": 0.2})) as loader:
        batches = take(loader, 10)
    assert set(refusals(batches)) == {"live: no answer within 0.2 s"}
    assert [batch["index"] for batch in batches] == list(range(1, 11))
    run.monkeypatch.delenv("DIFFTUMOR_TEST_SLEEP_S")
    run.resumes(repetition)


@THREE_TIMES
def test_batches_that_do_not_fit_into_memory_are_drawn_one_by_one(run, repetition):
    run.switch("memory_of_batches")
    with run.loader(run.trainer(live={"batch_size": 8, "batch_wait_ms": 50})) as loader:
        batches = take(loader, 8)
    assert not refusals(batches) and all(sample["in_target"] for sample in samples_of(batches))
    run.resumes(repetition)


@THREE_TIMES
def test_too_little_memory_is_counted_with_its_reason(run, repetition):
    run.switch("memory")
    with run.loader(run.trainer()) as loader:
        batches = take(loader, 4)
    assert {re.sub(r"\d+$", "1", reason) for reason in refusals(batches)} == {
        "live: InputError: the GPU's memory is too small for a batch of 1"
    }
    assert not any(sample["in_target"] for sample in samples_of(batches))
    run.resumes(repetition)


@THREE_TIMES
def test_weights_deleted_during_the_run_are_missed_at_the_next_start_only(run, repetition):
    trainer = run.trainer()
    with run.loader(trainer) as loader:
        run.switch("no_weights")
        assert not refusals(take(loader, 8))
        trainer.synthesis.live.keeper.process.kill()
        assert wait_until(lambda: trainer.synthesis.live.keeper.status()["state"] == "gone", seconds=20)
        batches = take(loader, 16)
    reason = "the synthesis server could not be started again (weights: liver_early.safetensors not found)"
    assert f"live: no answer: {reason}" in refusals(batches)
    run.resumes(repetition)


@THREE_TIMES
def test_full_disk_under_the_ring_is_counted_and_nothing_else_happens(run, repetition):
    bank = run.folder / "bank"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    # Of the workers, who write the lesions.
    run.monkeypatch.setattr(ring_module, "write_lesion", full)
    trainer = run.trainer(live={"ring": 3}, bank_folder=str(bank))
    with run.loader(trainer) as loader:
        batches = take(loader, 8)
        assert wait_until(lambda: trainer.synthesis.live.keeper.status().get("ring_failures", 0) > 0, seconds=10)
    assert not refusals(batches) and not list(bank.rglob("*.npz"))
    run.resumes(repetition)


@THREE_TIMES
def test_clock_that_jumps_changes_nothing(run, repetition, monkeypatch):
    run.switch("clock")
    true_time = time.time
    with run.loader(run.trainer(live={"timeout_s": 20.0})) as loader:
        monkeypatch.setattr(time, "time", lambda: true_time() - 7200)
        batches = take(loader, 6)
        monkeypatch.setattr(time, "time", lambda: true_time() + 7200)
        batches += take(loader, 6)
    monkeypatch.setattr(time, "time", true_time)
    assert not refusals(batches) and all(sample["in_target"] for sample in samples_of(batches))
    run.resumes(repetition)


@THREE_TIMES
def test_two_trainings_on_one_machine_and_dataset_do_not_disturb_one_another(run, repetition):
    trainers = run.trainer(), run.trainer()
    with (
        loader_of(trainers[0], run.folder / "log_a") as first,
        loader_of(trainers[1], run.folder / "log_b") as second,
    ):
        batches = [(next(first), next(second)) for _ in range(4)]
    assert all(voxels(a) == voxels(b) and drawn(a) == drawn(b) for a, b in batches)
    run.resumes(repetition)


@THREE_TIMES
def test_long_folder_for_temporary_files_does_not_matter(run, repetition):
    long = run.folder / ("long" * 25)
    long.mkdir()
    # For the server alone: torch, too, has sockets in that folder, and passes no batches on where its name is too long.
    names = SimpleNamespace(gettempdir=lambda: str(long), mkdtemp=tempfile.mkdtemp)
    run.monkeypatch.setattr(address_module, "tempfile", names)
    trainer = run.trainer()
    with run.loader(trainer) as loader:
        assert not trainer.synthesis.live.keeper.address.folder.is_relative_to(long)
        assert not refusals(take(loader, 4))
    run.resumes(repetition)


@pytest.fixture(scope="module")
def filled_bank(prepared_phantom, tmp_path_factory) -> Path:
    """What a training with a ring has left."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = Run(prepared_phantom, folder, monkeypatch)
        with run.loader(run.trainer(live={"ring": 4}, bank_folder=str(folder / "bank"))) as loader:
            take(loader, 16)
    return folder / "bank"


@THREE_TIMES
@pytest.mark.parametrize("damage", ["deleted", "truncated", "garbage"])
def test_bank_that_is_damaged_during_the_run_is_counted(run, filled_bank, repetition, damage):
    bank = shutil.copytree(filled_bank, run.folder / "bank")
    files = sorted(bank.rglob("*.lesion.npz"))
    assert files
    with run.loader(run.trainer(source="bank", bank_folder=str(bank))) as loader:
        good = take(loader, 4)
        for file in files:
            if damage == "truncated":
                os.truncate(file, file.stat().st_size // 2)
            elif damage == "garbage":
                file.write_bytes(random.Random(repetition).randbytes(500))
        if damage == "deleted":
            shutil.rmtree(bank)
        bad = take(loader, 18)
    assert any(sample["in_target"] for sample in samples_of(good))
    reasons = [reason for sample in samples_of(bad)[-8:] for reason in sample["refused"]]
    expected = "no lesion file for this case" if damage == "deleted" else "cannot be read as a lesion file"
    assert reasons and all(expected in reason or "no lesion file" in reason for reason in reasons)
    assert not any(sample["in_target"] for sample in samples_of(bad)[-8:])
    run.resumes(repetition)


@pytest.mark.long
def test_200_batches_under_random_kills_of_servers_and_connections_end_with_consistent_counts(run):
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance = random.Random(seed)
    # Far more than the crashes of one cause that it puts up with.
    run.monkeypatch.setattr(keeper_module, "_WITHIN_S", 0.2)
    trainer = run.trainer(live={"timeout_s": 20.0})
    recorder = SynthesisRecorder.of(
        trainer.synthesis, run.folder / "run", rank=0, roles=trainer.roles(), batches_per_epoch=200
    )
    kills = 0
    with run.loader(trainer) as loader:
        for _ in range(200):
            (batch,) = take(loader, 1)
            recorder.add(batch, epoch=0)
            if chance.random() < 0.08:
                kills += 1
                process = trainer.synthesis.live.keeper.process
                # A stopped one lets its clients wait; a killed one drops their connections at any moment.
                time.sleep(chance.random() * 0.05)
                process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        assert kills >= 5
    recorder.finish_epoch(0, server=trainer.synthesis.live.keeper.status())
    summary = json.loads(summary_path(run.folder / "run", 0, 0).read_text())
    records = list(read_log(run.folder / "run", 0))
    assert summary["samples"] == 200 * trainer.batch_size and summary["drawn"] == len(records) == sum(
        summary["sources"].values()
    )
    assert summary["reached"] == sum(record["in_target"] for record in records) >= 0.9 * len(records)
    assert summary["server"]["restarts"] >= 5
    # Whoever got no tumor knows why.
    assert all(record["tumors"] or record["refused"] for record in records)
