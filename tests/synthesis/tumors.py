"""Tumors, organs and scans of known geometry for the tests of the synthesis."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

LIVER = Organ("liver", (1,), 2)

# From fine to thick slices, and with another axis than z as the thick one.
GRIDS_MM = [
    (0.6, 0.6, 0.6),
    (1.0, 1.0, 1.0),
    (1.6, 0.8, 0.8),
    (3.0, 3.0, 3.0),
    (5.0, 0.8, 0.8),
    (0.9, 5.0, 1.1),
    (5.0, 5.0, 5.0),
]


def spec(**changes) -> TumorSpec:
    """A ball of 8 mm radius, 40 HU darker than its surroundings, if nothing else is said."""
    values = {
        "organ": "liver",
        "size_class": "small",
        "centre_mm": (20.0, 20.0, 20.0),
        "semi_axes_mm": (8.0, 8.0, 8.0),
        "rotation": (1.0, 0.0, 0.0, 0.0),
        "deformation_mm": 0.0,
        "background_hu": 100.0,
        "contrast_hu": -40.0,
        "texture_sd_hu": 10.0,
        "texture_grain_mm": 1.3,
        "texture_blur_mm": 0.6,
        "edge_blur_mm": 0.9,
        "seed": 7,
    }
    return TumorSpec(**values | changes)


def unit_quaternion(values) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(values) / np.linalg.norm(values))


@st.composite
def specs(draw, *, radius_mm=(2.6, 12.0), centre_mm=20.0) -> TumorSpec:
    """Tumors as the presets draw them or wilder; the centre is within 3 mm of `centre_mm` on each axis."""
    radius = draw(st.floats(*radius_mm))
    quaternion = draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
    return spec(
        centre_mm=draw(st.tuples(*[st.floats(centre_mm - 3, centre_mm + 3)] * 3)),
        semi_axes_mm=tuple(radius * draw(st.floats(0.6, 1.4)) for _ in range(3)),
        rotation=unit_quaternion(quaternion),
        deformation_mm=radius * draw(st.floats(0, 0.3)),
        edge_blur_mm=draw(st.floats(0.6, 1.2)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


def grid_of(edge_mm: float, spacing_mm) -> tuple[int, int, int]:
    """Shape of a grid that covers a cube of this edge."""
    return tuple(int(np.ceil(edge_mm / step)) + 1 for step in spacing_mm)


def liver_scan(
    edge_mm: float = 60.0, spacing_mm=(1.0, 1.0, 1.0), *, mean_hu=100.0, sd_hu=10.0, radius_mm=None, seed=0
) -> ArrayVolume:
    """A ball of liver in fat, with white noise; without a radius the liver fills the grid."""
    shape = grid_of(edge_mm, spacing_mm)
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(
        *[np.arange(n) * step - edge_mm / 2 for n, step in zip(shape, spacing_mm, strict=True)], indexing="ij"
    )
    labels = (
        np.ones(shape, np.uint8) if radius_mm is None else (sum(a**2 for a in axes) <= radius_mm**2).astype(np.uint8)
    )
    hu = np.where(labels == 1, mean_hu, -90.0) + rng.normal(0, sd_hu, shape)
    return ArrayVolume(hu.astype(np.float32), labels, tuple(spacing_mm))


def measured(volume: ArrayVolume, organ: Organ = LIVER) -> OrganStatistics:
    return OrganStatistics.measure(volume.hu_array, volume.label_array, organ=organ, spacing_mm=volume.spacing_mm)


def copy_of(volume: ArrayVolume) -> ArrayVolume:
    return replace(volume, hu_array=volume.hu_array.copy(), label_array=volume.label_array.copy())
