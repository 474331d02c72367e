"""What a run's files say of its synthetic samples, as text for a terminal."""

import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.runs.synthesis_log import (
    LOG_FOLDER,
    PROGRESS_PICTURE,
    SAMPLES_PICTURE,
    read_summaries,
    restarts_by_epoch,
    server_line,
)
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

_EPOCHS = 15
# A step may take long; and after the last one of an epoch there is the validation.
_STATE_OLD_S = 120.0
# The keeper of a server writes every two seconds, and waits for an answer for as long.
_SILENT_S = 15.0
_REASONS = 6


def monitor(run: str | Path) -> str:
    """What the files of a run say of its synthetic samples, as text.

    Args:
        run: folder of the run's fold in nnUNet_results, of a training that runs or has ended.

    Raises:
        InputError: as `check_run`.
    """
    check_run(run)
    return monitor_text(run, now=time.time())


def check_run(folder: str | Path) -> None:
    """Refuses folders that are not of a run with synthetic tumors.

    Raises:
        InputError: names what was expected, and folds in the folder or beside it.
    """
    folder = Path(folder)
    if (folder / LOG_FOLDER).is_dir():
        return
    message = (
        f"{folder / LOG_FOLDER}: not found; expected the folder of a fold that is or was trained with synthetic tumors "
        "(nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION/fold_X)"
    )
    folds = sorted(path.parent.name for path in folder.glob(f"fold_*/{LOG_FOLDER}"))
    raise InputError(message + (f"; there is {' and '.join(folds)} in {folder}" if folds else ""))


def monitor_text(folder: str | Path, *, now: float, size: tuple[int, int] | None = None) -> str:
    """The last epochs of every rank and those in progress, the servers, the reasons of refusals, and where to read on.

    Args:
        folder: of the run's fold; what is missing or damaged in it is left out.
        now: time in s since 1970.
        size: columns and lines of the terminal, for fewer epochs where there is no room; None: there is room.

    Returns:
        Lines without a newline at the end.
    """
    folder = Path(folder).absolute()
    by_rank = read_summaries(folder)
    above, below = (
        [str(folder)],
        [
            list(_in_progress(folder, now)),
            list(_servers(folder, now)),
            list(_refusals(by_rank)),
            list(_read_on(folder)),
        ],
    )
    if not (folder / LOG_FOLDER).is_dir():
        above.append(f"{LOG_FOLDER} is not there at the moment")
    elif not by_rank:
        above.append("no epoch is finished yet")
    for epochs in range(_EPOCHS, 0, -1):
        tables = [list(_rank_lines(rank, summaries, epochs)) for rank, summaries in by_rank.items()]
        text = "\n\n".join([*above, *("\n".join(lines) for lines in [*tables, *below] if lines)])
        if size is None or _lines_on_screen(text, size[0]) < size[1]:
            break
    return text


def _lines_on_screen(text: str, columns: int) -> int:
    return sum(max(1, math.ceil(len(line) / columns)) for line in text.split("\n"))


def _rank_lines(rank: int, summaries: Sequence[Mapping[str, Any]], epochs: int) -> Iterator[str]:
    first = f" ({epochs} shown)" if epochs < len(summaries) else ""
    yield f"Rank {rank}: {len(summaries)} {'epoch' if len(summaries) == 1 else 'epochs'}{first}"
    columns = epoch_columns(summaries, most=epochs)
    widths = {name: max(len(name), *map(len, cells)) for name, cells in columns.items()}
    yield "  ".join(name.rjust(width) for name, width in widths.items())
    for row in zip(*columns.values(), strict=True):
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths.values(), strict=True))


def epoch_columns(summaries: Sequence[Mapping[str, Any]], *, most: int) -> dict[str, list[str]]:
    """The figures of the last epochs of a rank, as columns of a table, by their heads.

    Args:
        summaries: of the rank, in the order of epochs.
        most: epochs.
    """
    last = summaries[-most:]
    columns = {
        "epoch": [str(summary["epoch"]) for summary in last],
        # Without year and seconds.
        "finished": [summary["finished"][5:16] for summary in last],
        "share": [f"{summary['share']:.3f}" for summary in last],
        "asked": [f"{summary['asked']:.3f}" for summary in last],
        **{size: [str(summary["sizes"].get(size, 0)) for summary in last] for size in SIZE_BANDS_MM},
    }
    sources = dict.fromkeys(source for summary in last for source in summary["sources"])
    if list(sources) != ["handcrafted"]:
        columns |= {f"from {source}": [str(s["sources"].get(source, 0)) for s in last] for source in sorted(sources)}
    columns["ms/sample"] = [_milliseconds(summary["synthesis_ms"], "p50") for summary in last]
    if any(summary["waited_ms"] for summary in last):
        columns["waited"] = [_milliseconds(summary["waited_ms"], "p50") for summary in last]
        columns["95 %"] = [_milliseconds(summary["waited_ms"], "p95") for summary in last]
    if any(summary.get("faint") for summary in last):
        columns["faint"] = [str(summary.get("faint", 0)) for summary in last]
    columns["refused"] = [str(sum(summary["refused"].values())) for summary in last]
    restarts = restarts_by_epoch(summaries)[-most:]
    if any(count is not None for count in restarts):
        columns["restarts"] = ["-" if count is None else str(count) for count in restarts]
    return columns


def _milliseconds(times: Mapping[str, float] | None, quantile: str) -> str:
    return f"{times[quantile]:.0f}" if times else "-"


def _in_progress(folder: Path, now: float) -> Iterator[str]:
    """A line per rank whose epoch has begun."""
    for rank, path in _of_ranks(folder, "in_progress"):
        try:
            state, age = load_json(path), max(0.0, now - path.stat().st_mtime)
            done, of, seconds = state["batches"], state["of"], state["seconds"]
            line = f"Rank {rank}: epoch {state['epoch']} in progress, {done} of {of} batches"
            line += f", {state['reached']} of {state['samples']} samples with a synthetic tumor"
            # The seconds are those since the first batch came.
            left = f", about {_duration(max(0.0, seconds * (of - done) / (done - 1) - age))} left" if done > 1 else ""
        except (OSError, ValueError, TypeError, KeyError):
            continue  # just replaced, or the epoch has ended
        if age > _STATE_OLD_S:
            yield f"{line}; not heard of for {_duration(age)}: validating, or stopped"
        else:
            yield f"{line}{left}; updated {_duration(age)} ago"


def _of_ranks(folder: Path, name: str) -> Iterator[tuple[int, Path]]:
    """The files NAME_rank_N.json of a run, by N."""
    found = {}
    for path in (folder / LOG_FOLDER).glob(f"{name}_rank_*.json"):
        if match := re.fullmatch(rf"{name}_rank_(\d+)\.json", path.name):
            found[int(match[1])] = path
    yield from sorted(found.items())


def _servers(folder: Path, now: float) -> Iterator[str]:
    """A line per server and one that says how old it is."""
    for rank, path in _of_ranks(folder, "server"):
        try:
            server = load_json(path)
            # Not the time that is written in it: containers often live in another time zone.
            age = max(0.0, now - path.stat().st_mtime)
            line, queue = server_line(server), server.get("queue")
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            yield f"Rank {rank}: {path.name} cannot be read at the moment"
            continue
        yield f"Rank {rank}: {line}"
        if server["state"] not in ("running", "restarting"):
            yield f"  since {_duration(age)}"
        elif age > _SILENT_S:
            yield f"  not heard of for {_duration(age)}: the training was probably killed"
        else:
            waiting = "" if queue is None else f", {queue} in the queue"
            yield f"  updated {_duration(age)} ago{waiting}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _refusals(by_rank: Mapping[int, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """The most frequent reasons in the last epoch, of all ranks."""
    if not by_rank:
        return
    last = max(summaries[-1]["epoch"] for summaries in by_rank.values())
    reasons: Counter[str] = Counter()
    for summaries in by_rank.values():
        if summaries[-1]["epoch"] == last:
            reasons.update(summaries[-1]["refused"])
    if reasons:
        yield f"Refused in epoch {last}:"
        yield from (f"  {count} x {reason}" for reason, count in reasons.most_common(_REASONS))


def _read_on(folder: Path) -> Iterator[str]:
    """Names, in the folder, of what says more."""
    # nnU-Net begins a new log at each start.
    logs = sorted(folder.glob("training_log_*.txt"), key=_modified)[-1:]
    logs += sorted((folder / LOG_FOLDER).glob("server_rank_*.log"))
    pictures = [folder / name for name in (PROGRESS_PICTURE, SAMPLES_PICTURE, "progress.png")]
    if files := [str(path.relative_to(folder)) for path in [*logs, *pictures] if path.is_file()]:
        yield "Read on: " + ", ".join(files)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
