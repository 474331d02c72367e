"""The files in which a run keeps account of its synthetic samples, and what they say in words.

Without torch and nnU-Net, so that `difftumor monitor` starts quickly.
"""

import gzip
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.json_checks import load_json

LOG_FOLDER = "synthesis_log"
SAMPLES_PICTURE = "synthetic_samples.png"
PROGRESS_PICTURE = "synthesis_progress.png"
_REASONS = 6  # that the training log names
_SUMMARY = re.compile(r"epoch_(?P<epoch>\d+)_rank_(?P<rank>\d+)\.json")
_KEYS = {"epoch", "finished", "samples", "asked", "drawn", "reached", "share", "sizes", "sources", "refused"}
_KEYS |= {"synthesis_ms", "waited_ms", "server"}


def summary_path(folder: str | Path, epoch: int, rank: int) -> Path:
    """Where the figures of an epoch are."""
    return Path(folder) / LOG_FOLDER / f"epoch_{epoch:05d}_rank_{rank}.json"


def log_path(folder: str | Path, epoch: int, rank: int) -> Path:
    """Where the samples of an epoch are logged."""
    return Path(folder) / LOG_FOLDER / f"epoch_{epoch:05d}_rank_{rank}.jsonl.gz"


def progress_path(folder: str | Path, rank: int) -> Path:
    """Where the figures of the epoch in progress are; not there between epochs."""
    return Path(folder) / LOG_FOLDER / f"in_progress_rank_{rank}.json"


def write_log(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes one epoch's samples, a JSON object per line, atomically."""
    with atomic_path(path) as temporary, gzip.open(temporary, "wt", compresslevel=6) as file:
        for record in records:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def read_log(folder: str | Path, rank: int) -> Iterator[dict[str, Any]]:
    """All logged samples of a run, in the order of batches.

    Epochs of an earlier run in the same folder, which the newest one has not come to, are left out.
    """
    ended = [summary["epoch"] for summary in read_summaries(folder).get(rank, [])]
    for path in sorted((Path(folder) / LOG_FOLDER).glob(f"epoch_*_rank_{rank}.jsonl.gz")):
        if ended and int(path.name.split("_")[1]) > ended[-1]:
            return
        with gzip.open(path, "rt") as file:
            yield from (json.loads(line) for line in file)


def read_summaries(folder: str | Path) -> dict[int, list[dict[str, Any]]]:
    """The figures of all epochs, by rank, in the order of epochs; files that are gone or damaged are left out.

    A run that was resumed from a checkpoint, or started again in the same folder, makes its later epochs again; those
    that it has not come to again yet are left out, too. The summaries are kept for later calls: do not change them.
    """
    found: dict[int, dict[int, dict[str, Any]]] = {}
    try:
        entries = list(os.scandir(Path(folder) / LOG_FOLDER))
    except OSError:
        return {}
    for entry in entries:
        if (match := _SUMMARY.fullmatch(entry.name)) is None:
            continue
        try:
            stat = entry.stat()
            summary = _read_summary(entry.path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except (OSError, ValueError):
            continue
        found.setdefault(int(match["rank"]), {})[int(match["epoch"])] = summary
    return {rank: _of_this_run(found[rank]) for rank in sorted(found)}


@cache
def _read_summary(path: str, *version: int) -> dict[str, Any]:
    """Reads a file once per version: there are thousands in a long run, some on slow file systems."""
    summary = load_json(path)
    if not isinstance(summary, dict) or not summary.keys() >= _KEYS:
        raise ValueError(f"{path}: not the summary of an epoch")
    return summary


def _of_this_run(summaries: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    newest = max(summaries, key=lambda epoch: (summaries[epoch]["finished"], epoch))
    return [summaries[epoch] for epoch in sorted(summaries) if epoch <= newest]


def restarts_by_epoch(summaries: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Restarts of the synthesis server during each epoch; None where there was no server.

    Args:
        summaries: of one rank, in the order of epochs.
    """
    restarts: list[int | None] = []
    before = 0
    for summary in summaries:
        if summary["server"] is None:
            restarts.append(None)
            continue
        count = summary["server"].get("restarts", 0)
        # The server counts from the start of the training process: a resumed run begins at zero.
        restarts.append(count - before if count >= before else count)
        before = count
    return restarts


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the training log says of an epoch."""
    lines = [
        f"Synthetic share: {summary['share']:.3f} achieved, {summary['asked']:.3f} asked ({summary['drawn']} of "
        f"{summary['samples']} samples were drawn to be synthetic, {summary['reached']} have a synthetic tumor in the "
        "target)",
        "Samples: "
        + ", ".join(
            f"{kind} {found['samples'] / max(summary['samples'], 1):.3f} ({found['asked']:.3f} asked)"
            for kind, found in summary["kinds"].items()
        ),
        "Synthetic tumors: " + (", ".join(f"{count} {size}" for size, count in summary["sizes"].items()) or "none"),
    ]
    if summary.get("faint"):  # summaries of earlier versions do not have it
        lines[-1] += f"; {summary['faint']} of them hardly to be seen"
    if len(summary["sources"]) > 1:
        lines[-1] += "; samples: " + ", ".join(f"{count} {source}" for source, count in summary["sources"].items())
    if summary["synthesis_ms"]:
        times = summary["synthesis_ms"]
        lines[-1] += f"; {times['p50']:.0f} ms per synthetic sample (most {times['max']:.0f})"
    if summary["waited_ms"]:
        times = summary["waited_ms"]
        lines[-1] += f", of these {times['p50']:.0f} ms waiting (95 %: {times['p95']:.0f}, most {times['max']:.0f})"
    if summary["server"] is not None:
        lines.append(server_line(summary["server"]))
    if summary["refused"]:
        reasons = list(summary["refused"].items())[:_REASONS]
        lines.append("Refused: " + "; ".join(f"{count} x {reason}" for reason, count in reasons))
    return lines


def server_line(server: Mapping[str, Any]) -> str:
    """A synthesis server in one line; its counts are those since its last start."""
    line = f"Synthesis server: {server['state']}, {server['restarts']} restarts"
    if server.get("tumors"):
        answer, drawing = server["latency_ms"], server["render_ms_per_tumor"]
        line += f"; {server['tumors']} tumors in {server['batches']} batches, {drawing['p50']:.0f} ms each"
        if answer:
            line += f", answers after {answer['p50']:.0f} ms (95 %: {answer['p95']:.0f}, most {answer['max']:.0f})"
        line += f"; at most {server['deepest_queue']} in the queue"
    if server.get("ring_failures"):
        line += f"; {server['ring_failures']} lesions could not be written to the ring"
    if server.get("gpu_memory_gb") is not None:
        line += f"; GPU memory {server['gpu_memory_gb']:.1f} GB"
    return line
