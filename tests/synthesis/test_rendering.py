import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter
from scipy.sparse import csr_array
from tumors import GRIDS_MM, LIVER, copy_of, liver_scan, spec, specs

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.patch import site_of
from nnunet_difftumor.synthesis.scene import insert_tumors, mask_of, patch_of
from nnunet_difftumor.synthesis.separable import along_axes
from nnunet_difftumor.synthesis.shape.profile import alpha_in
from nnunet_difftumor.synthesis.volume import ArrayVolume


def inserted(tumors, before):
    after = copy_of(before)
    return insert_tumors(after, tumors, LIVER), after


@settings(max_examples=40, deadline=None)
@given(tumor=specs(), spacing_mm=st.sampled_from(GRIDS_MM), radius_mm=st.sampled_from([None, 14.0]))
def test_what_the_tumor_does_not_reach_keeps_its_exact_value(tumor, spacing_mm, radius_mm):
    before = liver_scan(46.0, spacing_mm, radius_mm=radius_mm)
    (rendered,), after = inserted([tumor], before)
    mask = mask_of([rendered], before.shape)
    changed = after.hu_array != before.hu_array
    assert not changed[before.label_array == 0].any(), "outside the organ"
    gap_mm = distance_transform_edt(~maximum_filter(mask, 3), sampling=spacing_mm) if mask.any() else np.inf
    assert not (changed & (gap_mm > 3 * tumor.edge_blur_mm + 1e-4)).any()
    # The label is the mask and nothing else.
    np.testing.assert_array_equal(after.label_array == LIVER.tumor_label, mask)
    np.testing.assert_array_equal(after.label_array[~mask], before.label_array[~mask])
    if mask.any():
        assert changed[mask].mean() > 0.99  # texture may equal the scan by chance


@settings(max_examples=30, deadline=None)
@given(
    tumor=specs(radius_mm=(4, 12)),
    contrast_hu=st.floats(-120, 60),
    sd_hu=st.floats(0, 25),
    spacing_mm=st.sampled_from([(0.8, 0.8, 0.8), (1.6, 0.8, 0.8), (2.0, 2.0, 2.0), (3.0, 1.5, 1.5)]),
)
def test_the_tumor_has_the_contrast_of_its_spec(tumor, contrast_hu, sd_hu, spacing_mm):
    tumor = replace(tumor, background_hu=100.0, contrast_hu=contrast_hu, texture_sd_hu=sd_hu)
    before = liver_scan(46.0, spacing_mm)
    site = site_of(patch_of(before, tumor, LIVER), tumor)
    (rendered,), _ = inserted([tumor], before)
    # What was blended in, f' = (1 - alpha) f + alpha T, has exactly the spec's mean in the mask of every size.
    tissue = site.hu[site.near] + (rendered.hu[site.near] - site.hu[site.near]) / np.maximum(site.alpha, 0.5)
    assert tissue[site.mask].mean(dtype=np.float64) - 100 == pytest.approx(contrast_hu, abs=0.01)


@pytest.mark.parametrize("radius_mm", [3.0, 6.0, 12.0, 24.0])
def test_contrast_is_within_5_hu_for_every_size(radius_mm):
    before = liver_scan(60.0, (1.0, 0.8, 0.8), sd_hu=20.0)
    means = []
    for seed in range(80):
        tumor = spec(centre_mm=(30.0,) * 3, semi_axes_mm=(radius_mm,) * 3, texture_sd_hu=20.0, seed=seed)
        (rendered,), after = inserted([tumor], before)
        alpha = alpha_in(tumor, rendered.box, before.spacing_mm, np.ones(rendered.hu.shape, bool))
        means.append(after.hu_array[rendered.box][alpha > 0.95].mean())
    # A tiny tumor has some twenty such voxels, whose mean noise of 20 HU moves: only the mean of many can be right.
    assert np.mean(means) == pytest.approx(100 - 40, abs=2.5)
    if radius_mm > 3:
        assert np.abs(np.subtract(means, 60)).max() < 5


def test_texture_has_the_standard_deviation_of_the_spec():
    before = liver_scan(60.0)
    tumor = spec(centre_mm=(30.0,) * 3, semi_axes_mm=(20.0,) * 3, texture_sd_hu=17.0)
    (rendered,), after = inserted([tumor], before)
    alpha = alpha_in(tumor, rendered.box, before.spacing_mm, np.ones(rendered.hu.shape, bool))
    assert after.hu_array[rendered.box][alpha > 0.999].std() == pytest.approx(17, rel=0.05)


def test_the_edge_is_a_mixture_of_scan_and_tumor():
    before = liver_scan(40.0, sd_hu=0.0)
    tumor = spec(texture_sd_hu=0.0)
    (rendered,), after = inserted([tumor], before)
    alpha = alpha_in(tumor, rendered.box, before.spacing_mm, np.ones(rendered.hu.shape, bool))
    np.testing.assert_allclose(after.hu_array[rendered.box], 100 - 40 * alpha, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(tumor=specs(), spacing_mm=st.sampled_from(GRIDS_MM))
def test_a_spec_replayed_on_the_same_scan_gives_the_same_bits(tumor, spacing_mm):
    before = liver_scan(46.0, spacing_mm)
    _, first = inserted([tumor], before)
    _, second = inserted([type(tumor).from_dict(tumor.to_dict())], before)
    np.testing.assert_array_equal(first.hu_array, second.hu_array)
    np.testing.assert_array_equal(first.label_array, second.label_array)


def test_only_the_region_of_interest_is_looked_at():
    class Counting(ArrayVolume):
        def hu(self, box):
            seen.append(box)
            return super().hu(box)

    seen = []
    volume = Counting(*(getattr(liver_scan(90.0), name) for name in ("hu_array", "label_array", "spacing_mm")))
    insert_tumors(volume, [spec()], LIVER)
    assert all(part.stop - part.start <= 2 * (8 + 3 * 0.9 + 4) for box in seen for part in box)


def test_a_tumor_outside_organ_or_scan_changes_nothing():
    before = liver_scan(60.0, radius_mm=15.0)
    for centre_mm in ((3.0, 3.0, 3.0), (-50.0, 20.0, 20.0), (20.0, 500.0, 20.0)):
        (rendered,), after = inserted([spec(centre_mm=centre_mm)], before)
        assert not rendered.mask.any()
        np.testing.assert_array_equal(after.hu_array, before.hu_array)
        np.testing.assert_array_equal(after.label_array, before.label_array)


def test_a_second_tumor_does_not_replace_the_first():
    before = liver_scan(60.0)
    first, second = spec(centre_mm=(25.0,) * 3), spec(centre_mm=(30.0,) * 3, seed=8)
    rendered, after = inserted([first, second], before)
    masks = [mask_of([tumor], before.shape) for tumor in rendered]
    assert not (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(after.label_array == LIVER.tumor_label, masks[0] | masks[1])


def test_a_spec_of_another_renderer_is_refused():
    tumor = spec(renderer="diffusion")
    with pytest.raises(InputError, match="renderer is 'diffusion', expected 'handcrafted'"):
        HandcraftedRenderer().render([patch_of(liver_scan(), tumor, LIVER)], [tumor])


def test_a_scan_and_labels_of_different_shape_are_refused():
    with pytest.raises(InputError, match=r"shape \(2, 3, 4\) and the label map \(2, 3, 5\)"):
        ArrayVolume(np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 5), np.uint8), (1, 1, 1))


def test_texture_is_as_smooth_as_gaussian_noise_of_the_papers_settings():
    before = liver_scan(60.0)
    tumor = spec(centre_mm=(30.0,) * 3, semi_axes_mm=(20.0,) * 3, texture_grain_mm=1.0, texture_blur_mm=0.6)
    (rendered,), after = inserted([tumor], before)
    alpha = alpha_in(tumor, rendered.box, before.spacing_mm, np.ones(rendered.hu.shape, bool))
    inner = alpha > 0.999
    both = inner[1:] & inner[:-1]
    hu = after.hu_array[rendered.box]
    blurred = gaussian_filter(np.random.default_rng(0).standard_normal((60, 60, 60)), 0.6)
    expected = np.corrcoef(blurred[1:].ravel(), blurred[:-1].ravel())[0, 1]
    assert np.corrcoef(hu[1:][both], hu[:-1][both])[0, 1] == pytest.approx(expected, abs=0.03)


THREADS = """
import hashlib
from tumors import liver_scan, spec
from nnunet_difftumor.synthesis.scene import insert_tumors
from tumors import LIVER
volume = liver_scan(70.0)
insert_tumors(volume, [spec(centre_mm=(35.0,) * 3, semi_axes_mm=(22.0, 20.0, 25.0), deformation_mm=4.0)], LIVER)
print(hashlib.sha256(volume.hu_array).hexdigest())
"""


def test_the_number_of_threads_changes_no_bit():
    hashes = set()
    for threads in ("1", "2", "4"):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        environment = {**os.environ, **limits, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_matrices_along_axes_are_those_of_a_dense_product():
    rng = np.random.default_rng(0)
    field = rng.standard_normal((3, 4, 5), dtype=np.float32)
    matrices = [rng.standard_normal(shape, dtype=np.float32) for shape in ((6, 3), (2, 4), (7, 5))]
    result = along_axes(field, [csr_array(matrix) for matrix in matrices])
    np.testing.assert_allclose(result, np.einsum("ai,bj,ck,ijk->abc", *matrices, field), atol=1e-4)
    assert result.dtype == np.float32 and result.flags.c_contiguous
