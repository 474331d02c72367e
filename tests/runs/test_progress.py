"""The picture of a run's synthesis over its epochs: what it shows, and that it cannot end a training."""

import matplotlib
import numpy as np
import pytest
from PIL import Image
from synthetic_runs import SERVER, write_epoch

from nnunet_difftumor.runs import progress
from nnunet_difftumor.runs.progress import draw_progress
from nnunet_difftumor.runs.synthesis_log import LOG_FOLDER, PROGRESS_PICTURE


def colors(folder) -> set[str]:
    """Colors that fill at least 40 pixels of the panels, without the legends."""
    pixels = np.asarray(Image.open(folder / PROGRESS_PICTURE).convert("RGB"), np.uint32)[:, :600]
    found, counts = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_counts=True)
    return {f"#{color:06x}" for color in found[counts >= 40]}


def test_picture_has_an_area_for_every_size_that_was_made(tmp_path):
    write_epoch(tmp_path, 0, sizes={"tiny": 50, "large": 20})
    assert draw_progress(tmp_path) is None
    drawn = colors(tmp_path)
    made = {size for size, color in progress._SIZE_COLORS.items() if color in drawn}
    assert made == {"tiny", "large"}


def test_refusals_are_drawn_where_there_are_some(tmp_path):
    grey = "#808080"
    write_epoch(tmp_path, 0)
    draw_progress(tmp_path)
    assert grey not in colors(tmp_path)
    write_epoch(tmp_path, 1, refused={"large: no room": 7})
    draw_progress(tmp_path)
    assert grey in colors(tmp_path)


def test_series_are_means_of_ranks_and_times_those_of_the_slowest():
    def epoch(number, share, p50):
        return {"epoch": number, "share": share, "synthesis_ms": p50 and {"p50": p50}, "server": None}

    series = progress._Series({0: [epoch(3, 0.4, 20.0), epoch(5, 0.5, 30.0)], 1: [epoch(3, 0.6, 90.0)]})
    assert series.epochs.tolist() == [3, 4, 5]
    np.testing.assert_allclose(series.mean(lambda summary: summary["share"]), [0.5, np.nan, 0.5])
    np.testing.assert_allclose(series.greatest("synthesis_ms", "p50"), [90.0, np.nan, 30.0])


def test_restarts_of_all_servers_are_counted_in_their_epochs():
    def epochs(*restarts):
        return [{"epoch": i, "server": {"restarts": count}} for i, count in enumerate(restarts)]

    series = progress._Series({0: epochs(0, 1, 1, 3), 1: epochs(1, 1, 0, 0)})
    assert series.restarts().tolist() == [1, 1, 0, 2]


def test_epochs_without_synthetic_samples_and_gaps_are_drawn_without_a_warning(tmp_path, recwarn):
    write_epoch(tmp_path, 0, sizes={}, sources={}, synthesis_ms=None)
    write_epoch(tmp_path, 4, waited_ms={"p50": 1.0, "p95": 2.0, "max": 3.0}, server=SERVER | {"restarts": 2})
    assert draw_progress(tmp_path) is None
    assert (tmp_path / PROGRESS_PICTURE).read_bytes().startswith(b"\x89PNG")
    assert not recwarn.list


def test_the_style_that_nnunets_own_picture_leaves_behind_does_not_matter(tmp_path):
    write_epoch(tmp_path, 0)
    draw_progress(tmp_path)
    usual = (tmp_path / PROGRESS_PICTURE).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "#eaeaf2", "axes.labelsize": 30}):
        draw_progress(tmp_path)
    assert (tmp_path / PROGRESS_PICTURE).read_bytes() == usual


def test_nothing_is_drawn_before_the_first_epoch(tmp_path):
    assert draw_progress(tmp_path) is None
    assert not (tmp_path / PROGRESS_PICTURE).exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no font")])
def test_error_becomes_a_line_and_the_old_picture_stays(tmp_path, monkeypatch, error):
    write_epoch(tmp_path, 0)
    (tmp_path / PROGRESS_PICTURE).write_bytes(b"old")

    def savefig(self, path, **_):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    line = draw_progress(tmp_path)
    assert line.startswith(f"{tmp_path / PROGRESS_PICTURE} could not be drawn") and str(error) in line
    assert (tmp_path / PROGRESS_PICTURE).read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOG_FOLDER, PROGRESS_PICTURE]
