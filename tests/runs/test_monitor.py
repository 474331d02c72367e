"""What `difftumor monitor` shows of a run, and that no state of its files makes it fail."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_runs import SERVER, batch, recorder, write_epoch, write_server

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.runs.monitor import monitor_text
from nnunet_difftumor.runs.synthesis_log import LOG_FOLDER, progress_path, summary_path


def rows(text: str, rank: int = 0) -> list[dict[str, str]]:
    """The table of a rank, by the names of its columns."""
    header, *lines = text.partition(f"Rank {rank}: ")[2].partition("\n\n")[0].splitlines()[1:]
    # Columns are right-aligned: a cell ends where the column's name ends.
    ends = [i + 1 for i, letter in enumerate(header) if letter != " " and header[i + 1 : i + 3].strip() == ""]
    starts = [0, *ends]
    return [{header[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends, strict=False)} for line in lines]


def test_installed_command_prints_what_a_recorder_wrote(tmp_path):
    account = recorder(tmp_path)
    account.add(batch(1, in_target=True, faint=1), epoch=0)
    account.add(batch(2, in_target=False, refused=("large: no room",)), epoch=0)
    account.finish_epoch(0)
    command = [Path(sys.executable).with_name("difftumor"), "monitor", tmp_path, "--once"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = rows(done.stdout)
    assert row.items() >= {"epoch": "0", "share": "0.250", "asked": "0.500", "tiny": "1", "large": "0"}.items()
    assert (row["ms/sample"], row["refused"], row["faint"]) == ("15", "1", "1")
    assert "Refused in epoch 0:\n  1 x large: no room" in done.stdout
    assert done.stdout.endswith("Read on: synthetic_samples.png\n")
    assert "server" not in done.stdout and "restarts" not in done.stdout


def test_epoch_in_progress_is_shown_until_it_ends(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    account = recorder(tmp_path)
    for index in range(6):
        account.add(batch(index, in_target=index % 2 == 0), epoch=7)
    state = load_json(progress_path(tmp_path, 0))
    assert state["epoch"] == 7 and state["of"] == 250
    done, left_s = state["batches"], state["seconds"] / (state["batches"] - 1) * (250 - state["batches"])
    assert 3 <= done <= 6, "a state every 5 s, of a clock that advances by at least 2 s a batch"
    written = progress_path(tmp_path, 0).stat().st_mtime
    said = (
        f"Rank 0: epoch 7 in progress, {done} of 250 batches, {(done + 1) // 2} of {2 * done} samples with a synthetic"
    )
    text = monitor_text(tmp_path, now=written)
    assert said in text and f" tumor, about {left_s / 60:.0f} min left; updated 0 s ago" in text
    assert "not heard of for 5 min: validating, or stopped" in monitor_text(tmp_path, now=written + 300)
    account.finish_epoch(7)
    assert "in progress" not in monitor_text(tmp_path, now=written)


def test_first_state_of_an_epoch_is_written_at_once_and_says_nothing_of_the_time_left(tmp_path):
    account = recorder(tmp_path)
    for epoch in range(2):
        account.add(batch(1, in_target=True), epoch=epoch)
        text = monitor_text(tmp_path, now=time.time())
        assert f"epoch {epoch} in progress, 1 of 250 batches, 1 of 2 samples with a synthetic tumor; updated" in text
        account.finish_epoch(epoch)


def test_runs_of_earlier_versions_and_those_without_faint_tumors_have_no_column_of_them(tmp_path):
    write_epoch(tmp_path, 0)
    write_epoch(tmp_path, 1, faint=0)
    assert "faint" not in monitor_text(tmp_path, now=time.time())
    write_epoch(tmp_path, 2, faint=7)
    assert [row["faint"] for row in rows(monitor_text(tmp_path, now=time.time()))] == ["0", "0", "7"]


def test_last_epochs_of_every_rank_are_shown(tmp_path):
    for rank, epochs in ((0, 20), (1, 19)):
        for epoch in range(epochs):
            write_epoch(tmp_path, epoch, rank=rank, refused={"large: no room": epoch})
    text = monitor_text(tmp_path, now=time.time())
    assert [row["epoch"] for row in rows(text)] == [str(epoch) for epoch in range(5, 20)]
    assert [row["epoch"] for row in rows(text, 1)] == [str(epoch) for epoch in range(4, 19)]
    # Of rank 0 only: the other has not finished this epoch.
    assert "Refused in epoch 19:\n  19 x large: no room" in text
    low = monitor_text(tmp_path, now=time.time(), size=(200, 20))
    assert len(low.splitlines()) < 20 and [row["epoch"] for row in rows(low)] == ["16", "17", "18", "19"]


def test_sources_waiting_and_restarts_have_columns_where_a_server_draws(tmp_path):
    for epoch, restarts in enumerate((0, 2, 2, 1)):
        write_epoch(
            tmp_path,
            epoch,
            sources={"live": 200, "bank": 40},
            waited_ms={"p50": 12.0, "p95": 80.0, "max": 99.0},
            server=SERVER | {"restarts": restarts},
        )
    shown = rows(monitor_text(tmp_path, now=time.time()))
    assert [row["restarts"] for row in shown] == ["0", "2", "0", "1"]  # the last after the training was resumed
    assert shown[0].items() >= {"from live": "200", "from bank": "40", "waited": "12", "95 %": "80"}.items()


def test_epochs_that_a_resumed_run_has_not_made_again_are_left_out(tmp_path):
    for epoch in range(8):
        write_epoch(tmp_path, epoch)
    write_epoch(tmp_path, 5, after_s=2000)
    write_epoch(tmp_path, 6, after_s=2100)
    assert [row["epoch"] for row in rows(monitor_text(tmp_path, now=time.time()))] == list("0123456")


@pytest.mark.parametrize(
    ("state", "age_s", "said"),
    [
        ("running", 3, "  updated 3 s ago, 3 in the queue"),
        ("restarting", 14, "  updated 14 s ago, 3 in the queue"),
        ("running", 42, "  not heard of for 42 s: the training was probably killed"),
        ("restarting", 7200, "  not heard of for 2 h: the training was probably killed"),
        ("ended", 600, "  since 10 min"),
        ("gone", 3, "  since 3 s"),
    ],
)
def test_server_that_is_silent_although_it_should_run_is_called_so(tmp_path, state, age_s, said):
    modified = write_server(tmp_path, rank=1, state=state).stat().st_mtime
    lines = monitor_text(tmp_path, now=modified + age_s).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"Rank 1: Synthesis server: {state}, 0 restarts"))
    assert lines[at + 1] == said
    assert "no epoch is finished yet" in lines


def test_damaged_and_vanished_files_are_left_out(tmp_path):
    for epoch in range(3):
        write_epoch(tmp_path, epoch)
    summary_path(tmp_path, 1, 0).write_text('{"epoch": 1, "fini')
    summary_path(tmp_path, 2, 0).write_text("{}")
    write_server(tmp_path).write_text("")
    summary_path(tmp_path, 3, 0).symlink_to(tmp_path / "nowhere")
    text = monitor_text(tmp_path, now=time.time())
    assert [row["epoch"] for row in rows(text)] == ["0"]
    assert "server_rank_0.json cannot be read at the moment" in text
    shutil.rmtree(tmp_path / LOG_FOLDER)
    assert "synthesis_log is not there at the moment" in monitor_text(tmp_path, now=time.time())
    assert "not there" in monitor_text(tmp_path / "nowhere", now=time.time())


def test_a_rewritten_summary_is_read_again(tmp_path):
    write_epoch(tmp_path, 0, share=0.25)
    assert rows(monitor_text(tmp_path, now=time.time()))[0]["share"] == "0.250"
    write_epoch(tmp_path, 0, share=0.26)
    assert rows(monitor_text(tmp_path, now=time.time()))[0]["share"] == "0.260"


def test_folder_of_no_run_is_refused_and_its_folds_are_named(tmp_path, capsys):
    write_epoch(tmp_path / "fold_2", 0)
    assert main(["monitor", str(tmp_path), "--once"]) == 2
    error = capsys.readouterr().err
    assert "expected the folder of a fold" in error and f"there is fold_2 in {tmp_path}" in error


def test_interval_must_be_positive(tmp_path, capsys):
    assert main(["monitor", str(tmp_path), "--interval", "0"]) == 2
    assert "--interval is 0, expected 0.1 to 3600" in capsys.readouterr().err


def test_terminal_is_refreshed_to_its_height_until_ctrl_c(tmp_path, capsys, monkeypatch):
    for epoch in range(30):
        write_epoch(tmp_path, epoch)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "12")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            shutil.rmtree(tmp_path / LOG_FOLDER)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["monitor", str(tmp_path), "--interval", "3"]) == 0
    before, first, second = capsys.readouterr().out.split("\x1b[H\x1b[J")
    assert before == "" and pauses == [3, 3]
    assert len(first.splitlines()) == 11 and [row["epoch"] for row in rows(first)][-1] == "29"
    assert "not there at the moment" in second


def test_monitor_imports_neither_torch_nor_nnunet_nor_numpy(tmp_path):
    write_epoch(tmp_path, 0)
    code = f"import sys\nfrom nnunet_difftumor.cli.main import main\nassert main(['monitor', {str(tmp_path)!r}]) == 0\n"
    code += "assert not {'torch', 'nnunetv2', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
