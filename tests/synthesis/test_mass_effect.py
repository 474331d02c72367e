"""Mass effect: tissue moves outwards by equation 5, the scan and its labels alike."""

import numpy as np
import pytest
from tumors import LIVER, copy_of, liver_scan, spec

from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.shape.mass_effect import displaced, displaced_labels
from nnunet_difftumor.synthesis.volume import whole

SHAPE = (61, 61, 61)


def distances_mm(spacing_mm=(1.0, 1.0, 1.0), shape=SHAPE, centre_mm=(30.0, 30.0, 30.0)) -> np.ndarray:
    axes = np.meshgrid(
        *[np.arange(n) * s - c for n, s, c in zip(shape, spacing_mm, centre_mm, strict=True)], indexing="ij"
    )
    return np.sqrt(sum(axis**2 for axis in axes))


def pushing(**changes):
    return spec(centre_mm=(30.0, 30.0, 30.0), mass_effect=0.5, mass_effect_radius_mm=20.0, **changes)


def test_without_mass_effect_nothing_moves():
    hu, labels = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.uint8)
    assert displaced(hu, spec(), box=whole(SHAPE), spacing_mm=(1, 1, 1)) is hu
    assert displaced_labels(labels, spec(), box=whole(SHAPE), spacing_mm=(1, 1, 1)) is labels


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_tissue_stands_where_equation_5_puts_it(spacing_mm):
    shape = tuple(round(60 / step) + 1 for step in spacing_mm)
    distance = distances_mm(spacing_mm, shape)
    hu = distance.astype(np.float32)  # every voxel says how far from the centre it came from
    seen = displaced(hu, pushing(), box=whole(shape), spacing_mm=spacing_mm)
    share = np.minimum(distance / 20, 1)
    expected = (1 - (1 - share) ** 2 * 0.5) * distance
    far = distance > 6  # the cone's tip is no smooth function
    np.testing.assert_allclose(seen[far], expected[far], atol=0.2)  # linear between voxels
    assert np.array_equal(seen[distance >= 20], hu[distance >= 20])


def test_labels_move_with_the_scan():
    distance = distances_mm()
    labels = (distance < 10).astype(np.int16)
    hu = np.where(labels == 1, 100.0, -100.0).astype(np.float32)
    seen_hu = displaced(hu, pushing(), box=whole(SHAPE), spacing_mm=(1, 1, 1))
    seen = displaced_labels(labels, pushing(), box=whole(SHAPE), spacing_mm=(1, 1, 1))
    assert seen.sum() > 1.1 * labels.sum()  # the organ bulges
    assert ((seen_hu > 0) == (seen == 1)).mean() > 0.995
    assert seen.dtype == labels.dtype


def test_what_is_beyond_the_radius_keeps_its_exact_value_in_scan_and_labels():
    before = liver_scan(60.0, radius_mm=24.0)
    after = copy_of(before)
    rendered = insert_tumors(after, [pushing(semi_axes_mm=(9.0, 9.0, 9.0))], LIVER)[0]
    outside = distances_mm() > 20.0
    assert np.array_equal(after.hu_array[outside], before.hu_array[outside])
    assert np.array_equal(after.label_array[outside], before.label_array[outside])
    assert rendered.mask.any()
    assert (after.label_array == 2).sum() == rendered.mask.sum()


def test_interpolation_does_not_smooth_the_noise_away():
    noise = np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.float32)
    near = distances_mm() < 14
    smooth = displaced(noise, pushing(), box=whole(SHAPE), spacing_mm=(1, 1, 1))
    kept = displaced(noise, pushing(noise_sd_hu=10.0), box=whole(SHAPE), spacing_mm=(1, 1, 1))
    assert smooth[near].std() < 8
    assert 9.5 < kept[near].std() < 10.5
