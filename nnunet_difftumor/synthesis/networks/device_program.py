"""From sketches to tumors in HU, as tensor operations that wait for nothing: the same on a CPU and on a GPU.

The scan around a tumor is brought to the networks' grid, masked, encoded, and drawn upon; the picture goes back to the
scan's grid, is moved to the intensity of the scan and given its noise, and is blended into it. Everything beside the
networks is products with small matrices and sums over masks, on regions that are filled up with 0.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import torch

from nnunet_difftumor.generative.diffusion.cuda_graph import Part
from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.kernels import standard_normal
from nnunet_difftumor.synthesis.networks.packing import Layout
from nnunet_difftumor.synthesis.networks.products import Matrices, along_axes, interpolated
from nnunet_difftumor.synthesis.networks.sketch import STEP_HU
from nnunet_difftumor.synthesis.noise import EVEN_HU, LEAST_VOXELS, NOISE_CLIP
from nnunet_difftumor.synthesis.spec import SeedStream

# Steps of a sampler that are one graph. All steps of an early tumor take as long as five of a late one; between graphs
# the training has its turn on the device.
_STEPS_OF_A_PART = 5
# Where the mean of even tissue rests on less than this share of a voxel, it says nothing.
_LEAST_SHARE = 1e-3
# In HU^2: no variance but 0 is smaller.
_LEAST_VARIANCE = 1e-20


class DeviceProgram(NamedTuple):
    """Draws batches of one layout with one model. Equal ones do the same, so they are keys of graphs.

    Attributes:
        sampler: of the model.
        window_hu: what the networks see as -1 and 1.
        layout: of the blocks.
    """

    sampler: FastSampler
    window_hu: tuple[float, float]
    layout: Layout

    def parts(self) -> list[Part]:
        """From a block (bytes,) to HU of `near` with the tumor, float32 (b, z, y, x); to be called in this order."""
        taken = self.sampler.taken
        ranges = [range(first, min(first + _STEPS_OF_A_PART, taken)) for first in range(0, taken, _STEPS_OF_A_PART)]
        if len(ranges) == 1:
            return [self.draw]
        return [self.begin, *(partial(self.advance, steps=steps) for steps in ranges), self.finish]

    def draw(self, block: torch.Tensor) -> torch.Tensor:
        """All of it."""
        block, condition, noises, noisy = self.begin(block)
        return self.finish(*self.advance(block, condition, noises, noisy, steps=range(self.sampler.taken)))

    def begin(self, block: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the networks are told, and the noise."""
        volume, tumor = self.network_input(block)
        noises = self.noises(block)
        return block, self.sampler.model.condition(volume, tumor), noises, noises[0]

    def advance(
        self,
        block: torch.Tensor,
        condition: torch.Tensor,
        noises: torch.Tensor,
        noisy: torch.Tensor,
        *,
        steps: range,
    ) -> tuple[torch.Tensor, ...]:
        """Some of the sampler's steps."""
        return block, condition, noises, self.sampler.advance(noisy, condition, noises, steps)

    def finish(
        self, block: torch.Tensor, condition: torch.Tensor, noises: torch.Tensor, noisy: torch.Tensor
    ) -> torch.Tensor:
        """The picture, and what becomes of it in the scan."""
        return self.blended(block, self.picture_hu(self.sampler.model.decode_scaled(noisy)))

    def network_input(self, block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Volume in [-1, 1] and the tumor's mask on the networks' grid, (b, 1, z, x, y)."""
        views, (low, high) = self.layout.views(block), self.window_hu
        hu = views["hu"] * STEP_HU if self.layout.rounded else views["hu"]
        volume = interpolated(hu, self.layout.matrices(views, "network_of_box"))
        volume = volume.sub_(low).mul_(2 / (high - low)).sub_(1).clamp_(-1, 1)
        tumor = interpolated(views["alpha"], self.layout.matrices(views, "network_of_near"))
        # Smaller than the networks' voxels, as what an organ leaves of a tumor can be on a fine grid.
        voxels = tumor.flatten(1)
        lost = voxels.amax(1, keepdim=True) < 0.5
        voxels.scatter_add_(1, views["most_tumor"], lost.to(voxels.dtype))
        tumor = tumor >= 0.5
        # As views: the first convolution copies its input anyway.
        order = [0, *(axis + 1 for axis in self.layout.shapes.axes)]
        return volume.permute(order)[:, None], tumor.permute(order)[:, None]

    def noises(self, block: torch.Tensor) -> torch.Tensor:
        """Of the sampler, (draws, b, c, d, h, w)."""
        views, draws = self.layout.views(block), self.sampler.draws
        if self.layout.latent_noise is not None:
            return views["latent_noise"].transpose(0, 1)
        size = [1, 1, *(self.layout.shapes.network[axis] for axis in self.layout.shapes.axes)]
        shape = draws, *self.sampler.model.latent_shape(size)
        drawn = standard_normal(views["seed"], prod(shape), stream=SeedStream.LATENT)
        return drawn.view(self.layout.batch, *shape).transpose(0, 1)

    def picture_hu(self, decoded: torch.Tensor) -> torch.Tensor:
        """A decoded volume (b, 1, z, x, y) in HU, (b, z, x, y)."""
        low, high = self.window_hu
        return decoded[:, 0].clamp(-1, 1).mul_((high - low) / 2).add_((high + low) / 2).contiguous()

    def blended(self, block: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """f' = (1 - alpha) f + alpha T (Hu et al., CVPR 2023, equation 4), (b, z, y, x) of `near`."""
        views = self.layout.views(block)
        return torch.lerp(views["hu_near"], self.tissue(block, picture), views["alpha"])

    def tissue(self, block: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """T, float32 (b, z, y, x) of `near`: the picture at the intensity of the scan and with its noise.

        Args:
            block: the batch.
            picture: as from `picture_hu`.
        """
        views = self.layout.views(block)
        around = views["hu_around"]
        drawn, tissue = (self._on_scan(picture, views, name) for name in ("around_of_network", "near_of_network"))
        even = self._even(around, views["healthy"], views, "around")
        noise, sums = _residuals((around, drawn), even, self.layout.matrices(views, "mean_around"))
        voxels = noise[0].sum((1, 2, 3))
        # Too little tissue to compare with gives neither shift nor noise: the picture stays as it is.
        count = voxels.masked_fill(voxels < LEAST_VOXELS, torch.inf)
        shift = (sums[1] - sums[0]) / count
        variance, kept = torch.linalg.vector_norm(noise[1:], dim=(2, 3, 4)).square() / count
        # Independent of what the model draws, so variances add.
        lost = (variance - kept).clamp(min=0).sqrt()
        variance = variance.clamp(min=_LEAST_VARIANCE)
        added = self._noise_under(views, variance.rsqrt(), _correlations(noise[:2], variance))
        return torch.addcmul(tissue, _volume(lost), added) - _volume(shift)

    def _on_scan(self, picture: torch.Tensor, views: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        """A picture (b, z, x, y) of the networks along the scan's axes and at its voxels, (b, z, y, x); a view."""
        matrices, axes = self.layout.matrices(views, name), self.layout.shapes.axes
        values = along_axes(picture, [matrices[axis] for axis in axes])
        return values.permute(0, *(axes.index(axis) + 1 for axis in range(3)))

    def _noise_under(
        self, views: dict[str, torch.Tensor], inverse_sd: torch.Tensor, correlations: torch.Tensor
    ) -> torch.Tensor:
        """The noise that a tumor is to have, in standard deviations: the scan's own under it, and made alike where the
        tissue is not even.

        Args:
            views: of the block.
            inverse_sd: of the scan's noise, (b,), in 1 / HU.
            correlations: of neighbouring voxels' noise along z, y and x, (b, 3).
        """
        before = views["before"]
        even = self._even(before, views["organ"], views, "near")
        (_, residual), _ = _residuals((before,), even, self.layout.matrices(views, "mean_near"))
        own = (residual * _volume(inverse_sd)).clamp_(-NOISE_CLIP, NOISE_CLIP)
        if self.layout.latent_noise is not None:
            field = views["noise"]
        else:
            field = standard_normal(views["seed"], prod(self.layout.shapes.near), stream=SeedStream.NOISE)
            field = field.view(self.layout.batch, *self.layout.shapes.near)
        return torch.where(even, own, _correlated(field, correlations, views["neighbours"]))

    def _even(self, hu: torch.Tensor, organ: torch.Tensor, views: dict[str, torch.Tensor], where: str) -> torch.Tensor:
        """Boolean (b, z, y, x): organ without vessels, fat and lesions."""
        smooth = along_axes(hu, self.layout.matrices(views, f"even_{where}"))
        return organ & (smooth.sub_(_volume(views["background_hu"])).abs_() < EVEN_HU)


def _residuals(
    fields: Sequence[torch.Tensor], even: torch.Tensor, matrices: Matrices
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of even tissue: what its local mean leaves, and 0 elsewhere.

    Args:
        fields: n, each (b, z, y, x) in HU.
        even: boolean (b, z, y, x).
        matrices: of the mean's filter.

    Returns:
        `even` as float32 and behind it the residual of each field, (1 + n, b, z, y, x); and the fields' sums over even
        tissue, (n, b).
    """
    values = torch.empty((1 + len(fields), *even.shape), dtype=torch.float32, device=even.device)
    weight, weighted = values[0].copy_(even), values[1:]
    for field, target in zip(fields, weighted, strict=True):
        torch.mul(field, weight, out=target)
    smooth = torch.empty_like(values)
    for field, target in zip(values, smooth, strict=True):
        along_axes(field, matrices, out=target)
    means = smooth[1:].div_(smooth[0].clamp_(min=_LEAST_SHARE))
    sums = weighted.sum((2, 3, 4))
    weighted.addcmul_(means, weight, value=-1)
    return values, sums


def _correlations(noise: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Of neighbouring voxels along z, y and x, (b, 3).

    Args:
        noise: even tissue as 1 and 0, and its noise, which is 0 elsewhere, (2, b, z, y, x).
        variance: of the noise, (b,).
    """
    sums = []
    for axis in (2, 3, 4):
        size = noise.shape[axis] - 1
        sums.append((noise.narrow(axis, 1, size) * noise.narrow(axis, 0, size)).sum((2, 3, 4)))
    pairs, products = torch.stack(sums, -1)
    return products / (pairs.clamp(min=1) * variance[:, None])


def _correlated(white: torch.Tensor, correlations: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Noise of standard deviation 1 whose neighbours are correlated, at most by 1 / sqrt(2).

    Args:
        white: the same without correlation, (b, z, y, x).
        correlations: along z, y and x, (b, 3).
        neighbours: matrices that add the two neighbours of each voxel, along z, y and x, (b, 3, n, n); each counts as
            far as its axis is long.
    """
    wanted = correlations.clamp(-0.7, 0.7)
    # The weights (a, 1, a) correlate neighbours by 2 a / (1 + 2 a^2); that divisor is 2 / part.
    part = (1 - 2 * wanted.square()).sqrt() + 1
    weights = neighbours * (wanted / part)[:, :, None, None]
    weights.diagonal(dim1=2, dim2=3).add_(1)
    matrices = [weights[:, axis, :size, :size] for axis, size in enumerate(white.shape[1:])]
    return along_axes(white, matrices) * _volume((part.prod(1) / 8).sqrt())


def _volume(values: torch.Tensor) -> torch.Tensor:
    """(b,) as (b, 1, 1, 1)."""
    return values[:, None, None, None]
