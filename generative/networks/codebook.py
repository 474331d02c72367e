"""Codebook of the autoencoder: a moving average of the vectors that take each code (van den Oord et al., NeurIPS 2017,
appendix A.1), and codes that are hardly used restarted at random vectors (Dhariwal et al., 2020: Jukebox).
"""

import torch
from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.kernels import Quantized, vector_quantize

DECAY = 0.99
SMOOTHING = 1e-7
# Codes that fewer vectors take, on the moving average, are restarted.
RESTART_BELOW = 1.0
# Standard deviation, times 1 / sqrt(channels), of the jitter that tells tiled vectors apart.
JITTER = 0.01


class Codebook(nn.Module):
    """Codes without gradient; `forward` looks up, `update` learns.

    Args:
        codes: number of codes.
        channels: channels of a code.

    Attributes:
        embeddings: (codes, channels).
        counts: (codes,), moving average of how many vectors of a batch took a code.
        sums: (codes, channels), moving average of their sums.
        initialized: bool scalar; stored with the weights, so that a resumed training keeps its codes.
    """

    def __init__(self, codes: int, channels: int):
        super().__init__()
        if codes < 1 or channels < 1:
            raise InputError(f"codebook: expected at least one code and channel, got {codes} and {channels}")
        self.register_buffer("embeddings", torch.zeros(codes, channels))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, channels))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, latent: torch.Tensor, *, statistics: bool = False) -> Quantized:
        """Quantizes (b, channels, d, h, w): indices are (b, d, h, w), embeddings have the latent's shape.

        The codes are compared in float32 also under autocast. Counts and sums are those that `update` takes.
        """
        vectors = as_vectors(latent).to(self.embeddings.dtype)
        found = vector_quantize(vectors, self.embeddings, statistics=statistics)
        grid = (latent.shape[0], *latent.shape[2:])
        embeddings = found.embeddings.view(*grid, -1).movedim(-1, 1)
        return found._replace(indices=found.indices.view(grid), embeddings=embeddings)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Codes (b, channels, d, h, w) of indices (b, d, h, w)."""
        lowest, highest = indices.aminmax()
        if lowest < 0 or highest >= len(self.embeddings):
            raise InputError(f"indices: expected 0 to {len(self.embeddings) - 1}, got {lowest} to {highest}")
        return self.embeddings[indices].movedim(-1, 1)

    @torch.no_grad()
    def start(self, candidates: torch.Tensor) -> None:
        """First batch of a training: codes become vectors of the encoder, (codes, channels)."""
        self.embeddings.copy_(candidates)
        self.sums.copy_(candidates)
        self.counts.fill_(1)
        self.initialized.fill_(True)

    @torch.no_grad()
    def update(self, counts: torch.Tensor, sums: torch.Tensor, *, candidates: torch.Tensor | None) -> int:
        """One step of the moving average.

        Args:
            counts: (codes,), of the whole batch, summed over the processes of a distributed training.
            sums: (codes, channels), likewise.
            candidates: (codes, channels), where dead codes go, the same in every process; None leaves them.

        Returns:
            How many codes were restarted.
        """
        self.counts.lerp_(counts, 1 - DECAY)
        self.sums.lerp_(sums, 1 - DECAY)
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) / (total + len(self.counts) * SMOOTHING) * total
        self.embeddings.copy_(self.sums / smoothed[:, None])
        if candidates is None:
            return 0
        dead = self.counts < RESTART_BELOW
        self.embeddings.copy_(torch.where(dead[:, None], candidates, self.embeddings))
        return int(dead.sum())

    def draw_candidates(self, latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Random vectors (codes, channels) of a latent (b, channels, d, h, w), without repetition.

        With fewer vectors than codes they are tiled and jittered.

        Args:
            latent: what the encoder gave.
            generator: on the CPU.
        """
        vectors = as_vectors(latent.detach()).to(self.embeddings.dtype)
        codes, channels = self.embeddings.shape
        if len(vectors) < codes:
            vectors = vectors.repeat(-(-codes // len(vectors)), 1)
            jitter = torch.randn(vectors.shape, generator=generator) * (JITTER / channels**0.5)
            vectors = vectors + jitter.to(vectors)
        chosen = torch.randperm(len(vectors), generator=generator)[:codes]
        return vectors[chosen.to(vectors.device)]


def as_vectors(latent: torch.Tensor) -> torch.Tensor:
    """(b, c, d, h, w) as (b * d * h * w, c)."""
    return latent.movedim(1, -1).flatten(0, -2)
