"""The benchmark of realism measures what it says, and fails on a miss."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics


@pytest.fixture(scope="module")
def realism():
    path = Path(__file__).parents[2] / "benchmarks" / "realism.py"
    specification = importlib.util.spec_from_file_location("realism_benchmark", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def ellipsoid(semi_axes, edge=60) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(edge) - edge / 2] * 3, indexing="ij")
    return sum((axis / semi) ** 2 for axis, semi in zip(axes, semi_axes, strict=True)) <= 1


def test_a_ball_is_round(realism):
    shape = realism.shape_of(ellipsoid((15, 15, 15)))
    assert shape["sphericity_smooth"] == pytest.approx(1, abs=0.03)
    assert shape["flatness"] == pytest.approx(1, abs=0.01)
    assert shape["diameter"] == pytest.approx(30, abs=0.3)


def test_axes_give_flatness_and_elongation(realism):
    shape = realism.shape_of(ellipsoid((8, 12, 20)))
    assert shape["flatness"] == pytest.approx(0.4, abs=0.01)
    assert shape["elongation"] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.8)])
def test_an_ellipsoid_has_the_volume_of_the_one_with_its_moments(realism, spacing_mm):
    axes = np.meshgrid(*[np.arange(0, 50, step) - 25 for step in spacing_mm], indexing="ij")
    mask = sum((axis / semi) ** 2 for axis, semi in zip(axes, (9, 13, 20), strict=True)) <= 1
    shape = realism.shape_of(mask, spacing_mm)
    # Thick voxels make the axes a little too long.
    assert shape["solidity_ellipsoid"] == pytest.approx(1, abs=0.02)
    assert shape["flatness"] == pytest.approx(0.45, abs=0.02)
    assert shape["diameter"] == pytest.approx(2 * (9 * 13 * 20) ** (1 / 3), rel=0.01)


def test_two_balls_fill_their_ellipsoid_by_less_than_one(realism):
    """At a distance of d between the centres of balls of radius r the moments are r^2 / 5, and + d^2 / 4 along it."""
    near, far = ellipsoid((8, 8, 8), 80), ellipsoid((8, 8, 8), 80)
    shape = realism.shape_of(np.roll(near, -9, 0) | np.roll(far, 9, 0))
    expected = 2 * 8**3 / (5**1.5 * (64 / 5) * np.sqrt(64 / 5 + 81))
    assert shape["solidity_ellipsoid"] == pytest.approx(expected, rel=0.02)


def lesions(realism, slices_mm, count):
    return [realism.Lesion((slices_mm, 0.8, 0.8), 15.0, (0.5, 0.6, 0.7, 0.8))] * count


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({1.0: 40, 2.0: 50, 5.0: 9}, [("<= 1.25 mm", 40, False)]),
        ({1.0: 39, 2.0: 1, 5.0: 9}, [("<= 2 mm", 40, False)]),
        ({1.0: 3, 5.0: 60}, [("<= 2 mm", 3, False), ("all grids", 63, True)]),
        ({5.0: 7}, [("all grids", 7, True)]),
        ({}, []),
    ],
)
def test_like_grids_are_compared(realism, counts, expected):
    found = [lesion for slices_mm, count in counts.items() for lesion in lesions(realism, slices_mm, count)]
    cells = [(name, len(real), own) for name, real, own in realism.cells(found, "small")]
    assert cells == expected
    assert list(realism.cells(found, "large")) == []


# Medians of the real ones in shapes/*.csv, on slices of at most 1.25 mm, in the order of `MEASURES`.
@pytest.mark.parametrize(
    ("organ", "size", "medians"),
    [
        ("kidney", "medium", (0.76, 0.88, 0.86, 0.95)),
        ("liver", "small", (0.56, 0.79, 0.81, 0.89)),
        ("liver", "medium", (0.56, 0.80, 0.75, 0.88)),
    ],
)
def test_tumors_have_the_shapes_of_real_ones(realism, organ, size, medians):
    drawn = realism.synthetic_shapes("realistic", organ, size, 60, [(1.0, 1.0, 1.0)])
    for measure, median in zip(realism.MEASURES, medians, strict=True):
        assert np.median(drawn[measure]) == pytest.approx(median, abs=0.06), measure


@pytest.mark.parametrize(("inside_sd", "ratio"), [(15.0, 1.0), (7.5, 0.5)])
def test_noise_inside_is_compared_with_noise_outside(realism, inside_sd, ratio):
    rng = np.random.default_rng(0)
    labels = np.ones((70, 70, 70), np.uint8)
    labels[ellipsoid((12, 12, 12), 70)] = realism.LABEL
    hu = rng.normal(110, 15, labels.shape).astype(np.float32)
    statistics = OrganStatistics.measure(
        hu, np.ones_like(labels), organ=Organ("liver", (1,), 200), spacing_mm=(1.0, 1.0, 1.0)
    )
    hu[labels == realism.LABEL] = rng.normal(110, inside_sd, (labels == realism.LABEL).sum())
    sd, power = realism.noise_ratios(hu, labels, statistics, (1.0, 1.0, 1.0))
    assert sd == pytest.approx(ratio, abs=0.06)
    assert power == pytest.approx(ratio**2, abs=0.1)


def test_a_miss_is_remembered(realism, capsys):
    report = realism.Report()
    report.row("first", 0.1, 0, 0.25)
    assert report.held
    report.row("second", 0.3, 0, 0.25)
    report.row("third", 0.1, 0, 0.25)
    assert not report.held
    assert capsys.readouterr().out.count("MISSED") == 1
