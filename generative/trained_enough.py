"""What weights say about their own training, and whether that was enough for tumors that look like any."""

import math
from typing import Any

from nnunet_difftumor.generative.weights import Description
from nnunet_difftumor.json_checks import is_integer, is_number

# The preset `tiny`, the least with which the loss stops falling fast; the published models took 40,000 and 60,000.
MIN_STEPS = 2_000
# A scan's noise alone costs a good autoencoder some dB; below this, edges and vessels are lost as well.
MIN_PSNR_DB = 20.0
# What a network that always answers 0 gets, by the loss it is trained with: the mean of |x| and of x^2, x normal.
_LOSS_OF_GUESSING = {"l1": math.sqrt(2 / math.pi), "l2": 1.0}
# Of that. Models of 600 steps are at a tenth.
_MAX_SHARE_OF_GUESSING = 0.5


def doubts(description: Description, *, name: str) -> str | None:
    """A line for users if the training was too short or its validation figures are poor; None if not, or not known.

    Args:
        description: of the weights; what its `source` says is not trusted to be of any form.
        name: of the weights, for the line.
    """
    source = description.source
    poor_figures = _psnr if description.kind == "autoencoder" else _noise_loss
    reasons = [reason for reason in (_steps(source), poor_figures(source)) if reason is not None]
    if not reasons:
        return None
    return (
        f"weights {name}: {' and '.join(reasons)}; tumors may look like blobs or noise: look at them before you train "
        "on them (docs/train_generative.md)"
    )


def _steps(source: dict[str, Any]) -> str | None:
    steps = source.get("steps")
    if not is_integer(steps) or steps >= MIN_STEPS:
        return None
    return f"trained for {steps} steps only, expected at least {MIN_STEPS}"


def _psnr(source: dict[str, Any]) -> str | None:
    psnr_db = _of(source, "validation", "psnr_db")
    if not is_number(psnr_db) or psnr_db >= MIN_PSNR_DB:
        return None
    return f"its reconstructions have a PSNR of {psnr_db:.1f} dB, expected at least {MIN_PSNR_DB:.0f}"


def _noise_loss(source: dict[str, Any]) -> str | None:
    guessing, loss = (
        _LOSS_OF_GUESSING.get(str(_of(source, "settings", "loss"))),
        _of(source, "validation", "noise_loss"),
    )
    if guessing is None or not is_number(loss) or loss <= _MAX_SHARE_OF_GUESSING * guessing:
        return None
    return f"its noise loss is {loss:.2f}, where guessing gets {guessing:.2f}"


def _of(source: dict[str, Any], part: str, key: str) -> Any:
    found = source.get(part)
    return found.get(key) if isinstance(found, dict) else None
