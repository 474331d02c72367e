"""How the papers train their segmenters: what `prepare --recipe` plans and sets, and which trainer goes with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares

# In the plans file: what `prepare` was asked for. nnU-Net ignores it.
REQUEST_KEY = "difftumor_request"


@dataclass(frozen=True)
class Recipe:
    """What a paper says of data and prediction; optimizer and schedule are the trainer's.

    Attributes:
        spacing_mm, patch_size: (z, y, x).
        window_hu: what is kept of the intensities.
        unit_interval: whether the window becomes [0, 1]; else zero mean and unit standard deviation.
        batch_size: of a GPU.
        preset: of the tumors.
        shares: instead of the preset's.
        trainer: for `-tr`.
        tile_step: between tiles of the prediction, as a share of the patch; 1 less the overlap.
    """

    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float]
    unit_interval: bool
    batch_size: int
    preset: str
    shares: SampleShares | None
    trainer: str
    tile_step: float


RECIPES: Mapping[str, Recipe] = {
    # DiffTumor (CVPR 2024), supplement E.2, "Segmentation Model".
    "difftumor": Recipe(
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=(96, 96, 96),
        window_hu=(-175.0, 250.0),
        unit_interval=True,
        batch_size=2,
        preset="difftumor",
        shares=None,
        trainer="nnUNetTrainerDiffTumor_paper",
        tile_step=0.25,
    ),
    # Scaling Tumor Segmentation (ICCV 2025), supplement C.2, "nnU-Net Framework"; three synthetic samples a real one,
    # section A.
    "scaling": Recipe(
        spacing_mm=(1.5, 1.5, 1.5),
        patch_size=(96, 96, 96),
        window_hu=(-175.0, 250.0),
        unit_interval=True,
        batch_size=2,
        preset="difftumor",
        shares=SampleShares(real=0.25, synthetic=0.75, healthy=0.0),
        trainer="nnUNetTrainerDiffTumor_scaling",
        tile_step=0.5,
    ),
    # Hu et al. (CVPR 2023), section 4, "Implementation". It names no voxel size: the sizes of its tumors are those at
    # 1 mm.
    "hu2023": Recipe(
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=(96, 96, 96),
        window_hu=(-21.0, 189.0),
        unit_interval=False,
        batch_size=2,
        preset="hu2023",
        shares=None,
        trainer="nnUNetTrainerDiffTumorLabelFree_hu2023",
        tile_step=0.25,
    ),
}


def check_planned_by(plans: Mapping[str, Any], recipe: str, *, trainer: str) -> None:
    """Refuses plans of another recipe, or of none.

    Raises:
        InputError: naming the command that plans by the recipe.
    """
    request = plans.get(REQUEST_KEY)
    found = request.get("recipe") if isinstance(request, dict) else None
    if found != recipe:
        seen = f"were prepared by the recipe {found}" if found else "were prepared without a recipe"
        raise InputError(
            f"plans {plans.get('plans_name')}: {seen}, and {trainer} trains as the paper of {recipe} does, at its "
            f"voxel size and window; run `difftumor prepare --recipe {recipe} --overwrite`, or train "
            "nnUNetTrainerDiffTumor"
        )
