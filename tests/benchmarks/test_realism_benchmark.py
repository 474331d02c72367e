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
