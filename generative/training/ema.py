"""Moving average of a network's weights, kept as a network of its own."""

import copy

import torch
from torch import nn


class MovingAverage(nn.Module):
    """A copy of a network whose parameters follow it: p <- decay * p + (1 - decay) * p of the network.

    Args:
        network: copied.
        decay: of the average.
        start: up to this step the copy is exact.
        every: steps between updates.
    """

    def __init__(self, network: nn.Module, *, decay: float, start: int, every: int):
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.start, self.every = decay, start, every

    @torch.no_grad()
    def update(self, network: nn.Module, *, step: int) -> None:
        """After `step` steps of training. Buffers are constants of the architecture here, and stay."""
        if step > self.start and step % self.every:
            return
        share = 1.0 if step <= self.start else 1 - self.decay
        for own, other in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(other, share)
