"""The benchmark of the backbones counts what autograd keeps, and its page says what it counts."""

import importlib.util
import runpy

import pytest
from pages import REPOSITORY
from torch import nn

from nnunet_difftumor.backbones import BACKBONES

BENCHMARK = runpy.run_path(str(REPOSITORY / "benchmarks" / "backbones.py"))


def test_kept_memory_of_known_networks():
    voxels = 96**3
    # A convolution keeps its input, and a sigmoid its output; the weights are not counted.
    assert BENCHMARK["kept_bytes"](nn.Conv3d(1, 2, 1)) == 4 * voxels
    assert BENCHMARK["kept_bytes"](nn.Sequential(nn.Conv3d(1, 2, 1), nn.Sigmoid())) == 4 * voxels * (1 + 2)


def test_the_page_has_every_backbone():
    assert list(BENCHMARK["said"]()) == list(BENCHMARK["NETWORKS"]) == ["nnUNetTrainer", *BACKBONES]


@pytest.mark.parametrize(
    "name",
    ["nnUNetTrainerSTUNetSmall", *(pytest.param(name, marks=pytest.mark.long) for name in BENCHMARK["NETWORKS"])],
)
def test_the_page_says_what_is_counted(name):
    if BACKBONES.get(name, "").endswith("monai_trainers") and importlib.util.find_spec("monai") is None:
        pytest.skip("MONAI is not installed (extra `backbones`)")
    assert BENCHMARK["row"](name) == BENCHMARK["said"]()[name]
