"""A picture of a run's synthesis over its epochs, beside nnU-Net's progress.png."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.runs.synthesis_log import PROGRESS_PICTURE, read_summaries, restarts_by_epoch
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

_SIZE_COLORS = dict(zip(SIZE_BANDS_MM, ("#440154", "#31688e", "#35b779", "#e8d21d"), strict=True))
_SYNTHESIS, _WAITED, _RESTART = "#1f77b4", "#ff7f0e", "#d62728"


def draw_progress(folder: str | Path) -> str | None:
    """Draws `synthesis_progress.png` from the summaries of all epochs so far; nothing if there are none.

    Counts of several ranks are those of the mean rank; times are those of the slowest rank, which the others wait for.

    Args:
        folder: of the run's fold; the picture is written into it, atomically.

    Returns:
        What went wrong, in a line; None if all is well. It raises nothing: no picture is worth a training.
    """
    path = Path(folder) / PROGRESS_PICTURE
    try:
        by_rank = read_summaries(folder)
        if by_rank:
            from matplotlib import style

            # nnU-Net's own picture leaves seaborn's style and a huge font behind.
            with style.context("default"):
                _draw(path, by_rank)
    except Exception as error:
        return f"{path} could not be drawn ({type(error).__name__}: {error})"
    return None


class _Series:
    """Figures over the epochs, without gaps: what no rank has is NaN."""

    def __init__(self, by_rank: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
        self.by_rank = by_rank
        self.per_process = " per process" if len(by_rank) > 1 else ""
        numbers = [summary["epoch"] for summaries in by_rank.values() for summary in summaries]
        self.first = min(numbers)
        self.epochs = np.arange(self.first, max(numbers) + 1)

    def mean(self, value: Callable[[Mapping[str, Any]], float]) -> np.ndarray:
        """Of the ranks that have the epoch."""
        total, ranks = np.zeros(len(self.epochs)), np.zeros(len(self.epochs))
        for summaries in self.by_rank.values():
            for summary in summaries:
                total[summary["epoch"] - self.first] += value(summary)
                ranks[summary["epoch"] - self.first] += 1
        return np.divide(total, ranks, out=np.full(len(total), np.nan), where=ranks > 0)

    def greatest(self, times: str, quantile: str) -> np.ndarray:
        """Of the ranks, of a quantile of `synthesis_ms` or `waited_ms`."""
        greatest = np.full(len(self.epochs), np.nan)
        for summaries in self.by_rank.values():
            for summary in summaries:
                if summary[times]:
                    i = summary["epoch"] - self.first
                    greatest[i] = np.fmax(greatest[i], summary[times][quantile])
        return greatest

    def restarts(self) -> np.ndarray:
        """Of the servers of all ranks."""
        total = np.zeros(len(self.epochs), int)
        for summaries in self.by_rank.values():
            for summary, count in zip(summaries, restarts_by_epoch(summaries), strict=True):
                total[summary["epoch"] - self.first] += count or 0
        return total


def _draw(path: Path, by_rank: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    # Not pyplot: it would keep the figure, and choose a window system.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    series = _Series(by_rank)
    figure = Figure(figsize=(10, 11))
    panels = figure.subplots(4, 1, sharex=True)
    # By hand: layout engines draw everything twice.
    figure.subplots_adjust(left=0.09, right=0.76, top=0.97, bottom=0.05, hspace=0.12)
    for axes, draw in zip(panels, (_draw_shares, _draw_sizes, _draw_times, _draw_troubles), strict=True):
        draw(axes, series)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, reverse=draw is _draw_sizes)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[-1].set_xlim(series.epochs[0] - 0.5, series.epochs[-1] + 0.5)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80)


def _draw_shares(axes: Any, series: _Series) -> None:
    _line(axes, series, series.mean(lambda summary: summary["share"]), color=_SYNTHESIS, label="achieved")
    _line(axes, series, series.mean(lambda summary: summary["asked"]), color="black", linestyle="--", label="asked")
    axes.set_ylabel("share of synthetic samples")
    axes.set_ylim(0, 1.02)


def _draw_sizes(axes: Any, series: _Series) -> None:
    below = np.zeros(len(series.epochs))
    for size, color in _SIZE_COLORS.items():
        above = below + series.mean(lambda summary, size=size: summary["sizes"].get(size, 0))
        _area(axes, series, below, above, color=color, label=size)
        below = above
    axes.set_ylabel("tumors" + series.per_process)
    axes.set_ylim(bottom=0)


def _draw_times(axes: Any, series: _Series) -> None:
    for times, label, color in (
        ("synthesis_ms", "per synthetic sample", _SYNTHESIS),
        ("waited_ms", "waiting for the server", _WAITED),
    ):
        p50, p95 = series.greatest(times, "p50"), series.greatest(times, "p95")
        if not np.isnan(p50).all():
            _area(axes, series, p50, p95, color=color, alpha=0.25)
            _line(axes, series, p50, color=color, label=f"{label},\nmedian to 95 %")
    _mark_restarts(axes, series)
    axes.set_ylabel("ms" + (", slowest process" if series.per_process else ""))
    axes.set_ylim(bottom=0)


def _draw_troubles(axes: Any, series: _Series) -> None:
    refused = series.mean(lambda summary: sum(summary["refused"].values()))
    _area(axes, series, np.zeros(len(refused)), refused, color="grey", label="refused tumors")
    _mark_restarts(axes, series, label="restart of the\nserver ({} in all)")
    axes.set_ylabel("refused" + series.per_process)
    axes.set_ylim(0, max(1.0, 1.1 * np.nanmax(refused)))


def _mark_restarts(axes: Any, series: _Series, label: str | None = None) -> None:
    restarts = series.restarts()
    for epoch in series.epochs[restarts > 0]:
        line = axes.axvline(epoch, color=_RESTART, linewidth=1, linestyle=":")
    if label is not None and restarts.any():
        line.set_label(label.format(restarts.sum()))


def _line(axes: Any, series: _Series, values: np.ndarray, **style: Any) -> None:
    axes.plot(_steps(series), np.repeat(values, 2), linewidth=1.2, **style)


def _area(axes: Any, series: _Series, low: np.ndarray, high: np.ndarray, **style: Any) -> None:
    axes.fill_between(_steps(series), np.repeat(low, 2), np.repeat(high, 2), linewidth=0, **style)


def _steps(series: _Series) -> np.ndarray:
    """A step per epoch, so that a single one shows. Axes.stairs does it too, in half a second for 1000 epochs."""
    return (series.epochs[:, None] + (-0.5, 0.5)).ravel()
