"""Losses of generator and discriminators on their logits, and the matching of the discriminators' features."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def generator_loss(fake: torch.Tensor, *, kind: str) -> torch.Tensor:
    """Of the logits of generated samples: "hinge" (Lim and Ye, 2017) or "log", non-saturating (Goodfellow et al.)."""
    return -fake.mean() if kind == "hinge" else functional.softplus(-fake).mean()


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, *, kind: str) -> torch.Tensor:
    """Mean of the losses of real and of generated samples."""
    if kind == "hinge":
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
    return 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())


def feature_distance(real: Sequence[torch.Tensor], fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over layers of the mean absolute difference; gradients reach the generated samples only."""
    pairs = zip(real, fake, strict=True)
    return sum((functional.l1_loss(of_fake, of_real.detach()) for of_real, of_fake in pairs))
