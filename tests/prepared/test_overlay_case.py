"""Cases with tumors on top: what nnU-Net crops is what was rendered, and nothing else has changed."""

import numpy as np
import pytest
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.synthesis.patch import RenderedTumor

INTENSITY = CTIntensity(window_hu=(-175.0, 250.0), mean_hu=100.0, sd_hu=40.0)
SHAPE = (9, 11, 13)


def case_with_tumor():
    rng = np.random.default_rng(0)
    data = INTENSITY.to_normalized(rng.uniform(-175, 250, (1, *SHAPE)).astype(np.float32))
    seg = np.ones((1, *SHAPE), np.int16)
    case = OverlayCase("a", data, seg, spacing_mm=(1.0, 1.0, 1.0), intensity=INTENSITY)
    box = (slice(2, 6), slice(3, 8), slice(4, 9))
    mask = np.zeros((4, 5, 5), bool)
    mask[1:3, 1:4, 1:4] = True
    hu = case.hu(box).copy()
    hu[mask] = 60.0
    labels = np.where(mask, 2, case.labels(box)).astype(np.int16)
    case.paste(RenderedTumor(None, box, hu, labels, mask))
    expected_data, expected_seg = data.copy(), seg.copy()
    expected_data[(0, *box)][mask] = INTENSITY.to_normalized(np.float32(60.0))
    expected_seg[(0, *box)][mask] = 2
    return case, expected_data, expected_seg


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.tuples(st.integers(-6, size - 1), st.integers(1, 20)) for size in SHAPE]))
def test_every_crop_of_nnunet_equals_the_crop_of_the_whole_array(edges):
    case, data, seg = case_with_tumor()
    bbox = [[low, max(low + length, 1)] for low, length in edges]
    assert np.array_equal(crop_and_pad_nd(case.data, bbox, 0), crop_and_pad_nd(data, bbox, 0))
    assert np.array_equal(
        crop_and_pad_nd(case.seg, bbox, -1, cast_cropped_to=np.int16),
        crop_and_pad_nd(seg, bbox, -1, cast_cropped_to=np.int16),
    )


def test_a_later_reader_sees_the_tumor():
    case, _, _ = case_with_tumor()
    whole = tuple(slice(0, size) for size in SHAPE)
    assert np.count_nonzero(case.labels(whole) == 2) == 2 * 3 * 3
    assert case.hu((slice(3, 4), slice(4, 5), slice(5, 6)))[0, 0, 0] == pytest.approx(60, abs=1e-4)


def test_normalization_and_its_inverse_are_exact_inside_the_window():
    hu = np.random.default_rng(1).uniform(-175, 250, 10_000).astype(np.float32)
    assert np.abs(INTENSITY.to_hu(INTENSITY.to_normalized(hu)) - hu).max() < 1e-4
    assert INTENSITY.to_hu(INTENSITY.to_normalized(np.float32([-1000, 3000]))) == pytest.approx([-175, 250])


def test_normalization_is_that_of_nnunet():
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    properties = {"mean": 100.0, "std": 40.0, "percentile_00_5": -175.0, "percentile_99_5": 250.0}
    hu = np.random.default_rng(2).uniform(-1000, 1000, (4, 5, 6)).astype(np.float32)
    theirs = CTNormalization(intensityproperties=properties).run(hu.copy(), np.zeros((4, 5, 6)))
    assert np.array_equal(INTENSITY.to_normalized(hu), theirs)
