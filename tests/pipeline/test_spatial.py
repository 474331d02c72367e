"""The quick spatial augmentation: nnU-Net's own result, from less work."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_difftumor.pipeline.seeding import seeded_generators
from nnunet_difftumor.pipeline.spatial import QuickSpatialTransform, with_quick_spatial_transform

SHAPE, PATCH_SIZE = (60, 70, 80), (48, 50, 52)
LIVER, TUMOR, OTHER_TUMOR = 1, 2, 3


def nnunet_transforms(**kwargs) -> ComposeTransforms:
    return nnUNetTrainer.get_training_transforms(PATCH_SIZE, (-0.5, 0.5), None, None, False, **kwargs)


def stock_transform(**kwargs) -> SpatialTransform:
    """nnU-Net's, which always turns and scales."""
    transform = nnunet_transforms().transforms[0]
    assert type(transform) is SpatialTransform
    for key, value in {"p_rotation": 1, "p_scaling": 0.7, **kwargs}.items():
        setattr(transform, key, value)
    return transform


def crop(tumors=(), *, outside: int = 0) -> torch.Tensor:
    """int16 (1, z, y, x): a liver with balls (z, y, x, radius, label) in it; the first rows lie outside of the scan."""
    z, y, x = np.indices(SHAPE)
    labels = ((((z - 30) / 24) ** 2 + ((y - 35) / 26) ** 2 + ((x - 40) / 26) ** 2) < 1).astype(np.int16)
    for cz, cy, cx, radius, label in tumors:
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2] = label
    labels[:, :outside] = -1
    return torch.from_numpy(labels)[None]


def both(stock: SpatialTransform, segmentation: torch.Tensor, seed: int):
    quick = QuickSpatialTransform.like(stock, [TUMOR, OTHER_TUMOR])
    image = torch.zeros(segmentation.shape)
    with seeded_generators((seed,)):
        params = stock.get_parameters(image=image)
    expected = stock._apply_to_segmentation(segmentation.clone(), **params)
    seen = quick._apply_to_segmentation(segmentation.clone(), **params)
    return torch.where(expected == -1, 0, expected), seen


@pytest.mark.parametrize("settings", [{}, {"p_rotation": 0, "p_scaling": 0}, {"p_elastic_deform": 1}])
@pytest.mark.parametrize(
    "tumors",
    [
        [],
        [(30, 35, 40, 5, TUMOR)],
        [(30, 35, 40, 1, TUMOR)],
        [(12, 30, 40, 6, TUMOR), (45, 40, 42, 4, OTHER_TUMOR)],
        [(30, 35, 40, 200, TUMOR)],  # nothing else in the crop
        [(0, 0, 0, 4, TUMOR)],  # in a corner that is turned out of the patch
    ],
    ids=["none", "one", "one voxel", "two labels", "everywhere", "corner"],
)
def test_segmentations_are_those_of_nnunet(tumors, settings):
    segmentation = crop(tumors)
    for seed in range(4):
        expected, seen = both(stock_transform(**settings), segmentation, seed)
        assert seen.dtype == expected.dtype
        assert torch.equal(seen, expected)


def test_only_where_a_label_meets_background_and_outside_is_anything_different():
    segmentation = crop([(30, 17, 40, 5, TUMOR), (2, 35, 40, 9, TUMOR), (58, 35, 40, 9, TUMOR)], outside=16)
    for seed in range(6):
        expected, seen = both(stock_transform(), segmentation, seed)
        assert (seen != expected).float().mean() < 1e-3
        assert int((seen == TUMOR).sum()) == pytest.approx(int((expected == TUMOR).sum()), rel=0.02)


def test_less_is_resampled(monkeypatch):
    sampled = []
    import batchgeneratorsv2.transforms.spatial.spatial as module

    original = module.grid_sample

    def counted(values, grid, **kwargs):
        sampled.append(grid[..., 0].numel())
        return original(values, grid, **kwargs)

    monkeypatch.setattr(module, "grid_sample", counted)
    segmentation = crop([(30, 35, 40, 5, TUMOR)], outside=8)
    stock = stock_transform()
    with seeded_generators((0,)):
        params = stock.get_parameters(image=torch.zeros(segmentation.shape))
    stock._apply_to_segmentation(segmentation, **params)
    before = sum(sampled)
    sampled.clear()
    QuickSpatialTransform.like(stock, [TUMOR])._apply_to_segmentation(segmentation, **params)
    assert sum(sampled) < 0.6 * before


def test_it_takes_the_place_of_nnunets_own():
    quick = with_quick_spatial_transform(nnunet_transforms(), [TUMOR]).transforms
    stock = nnunet_transforms().transforms
    assert [type(step) for step in quick[1:]] == [type(step) for step in stock[1:]]
    assert type(quick[0]) is QuickSpatialTransform
    assert quick[0].p_rotation == stock[0].p_rotation
    assert quick[0].rotation == stock[0].rotation


def test_it_leaves_alone_what_needs_to_know_the_outside_or_is_somebody_elses():
    masked = with_quick_spatial_transform(nnunet_transforms(use_mask_for_norm=[True]), [TUMOR]).transforms
    assert any(isinstance(step, MaskImageTransform) for step in masked)
    assert type(masked[0]) is SpatialTransform

    class Own(SpatialTransform):
        pass

    transforms = nnunet_transforms()
    transforms.transforms[0].__class__ = Own
    assert type(with_quick_spatial_transform(transforms, [TUMOR]).transforms[0]) is Own
    alone = ApplyRandomBinaryOperatorTransform([0])
    assert with_quick_spatial_transform(alone, [TUMOR]) is alone
