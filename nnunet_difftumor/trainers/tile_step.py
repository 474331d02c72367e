"""nnU-Net's validation with another overlap of tiles than the half that it has built in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module  # noqa: N813 (a module named like its class)


@contextmanager
def tiles_every(step: float) -> Iterator[None]:
    """Within the block, predictors that nnU-Net's trainer makes move their tiles by this share of the patch."""
    stock = module.nnUNetPredictor

    def make(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **{**kwargs, "tile_step_size": step})

    module.nnUNetPredictor = make
    try:
        yield
    finally:
        module.nnUNetPredictor = stock
