"""A batch of sketches as one block of memory: one copy to the device, whatever is in it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from nnunet_difftumor.synthesis.networks.products import gaussian_matrix, neighbours_matrix
from nnunet_difftumor.synthesis.networks.sketch import AROUND_MM, Sketch, in_hu
from nnunet_difftumor.synthesis.noise import EVEN_MM, SMOOTHING_MM, TRUNCATE
from nnunet_difftumor.synthesis.spec import SeedStream
from nnunet_difftumor.synthesis.volume import box_shape

Size = tuple[int, int, int]
# Extents to which what a tumor changes is filled up, in mm: each is another graph for each number of tumors.
EXTENTS_MM = (20.0, 30.0, 45.0, 65.0, 100.0)
# Every part of the block begins at a multiple of so many bytes.
_ALIGNMENT = 64
# Products along every axis: to which grid, and from which.
_MATRICES = {
    "network_of_box": ("network", "box"),
    "network_of_near": ("network", "near"),
    "around_of_network": ("around", "network"),
    "near_of_network": ("near", "network"),
    "even_around": ("around", "around"),
    "mean_around": ("around", "around"),
    "even_near": ("near", "near"),
    "mean_near": ("near", "near"),
}


class Shapes(NamedTuple):
    """What sketches have in common that go through the networks together. Sizes are along the scan's axes (z, y, x).

    Attributes:
        axes: for each axis of the networks, the scan's.
        network: voxels of their grid.
        box, around, near: voxels of the scan, as `Sketch` has them.
    """

    axes: tuple[int, int, int]
    network: Size
    box: Size
    around: Size
    near: Size

    @classmethod
    def of(cls, sketch: Sketch) -> "Shapes":
        """Its own."""
        grid = sketch.grid
        return cls(grid.axes, grid.size, box_shape(sketch.box), box_shape(sketch.around), box_shape(sketch.near))

    @classmethod
    def bucket(cls, sketch: Sketch) -> "Shapes":
        """Those to which it is filled up, which are few for scans of one voxel size.

        What the tumor changes is filled up to the next of `EXTENTS_MM`; the rest is what it would be in a scan that
        has no border.
        """
        own, grid = cls.of(sketch), sketch.grid
        spacing = np.asarray(grid.spacing_mm)
        covered = (np.asarray(grid.size) - 1) * np.abs(grid.step_mm)
        box = np.maximum(np.ceil(covered / spacing).astype(int) + 2, own.box)
        sizes = (np.ceil(extent / spacing).astype(int) for extent in EXTENTS_MM)
        near = np.minimum(next((size for size in sizes if (size >= own.near).all()), box), box)
        around = np.minimum(near + 2 * np.ceil(AROUND_MM / spacing).astype(int), box)
        return cls(grid.axes, grid.size, *(tuple(size.tolist()) for size in (box, around, near)))

    def holding(self, other: "Shapes") -> "Shapes":
        """Of this and another of the same grid of the networks, the larger sizes."""
        sizes = zip(self[2:], other[2:], strict=True)
        return Shapes(*self[:2], *(tuple(map(max, *pair)) for pair in sizes))


@dataclass(frozen=True)
class Layout:
    """Where everything is in a block. What is smaller than the shapes is filled up with 0.

    Attributes:
        batch: tumors.
        shapes: of all of them.
        rounded: whether the HU of `box` are int16 in steps of `STEP_HU`; else float32.
        latent_noise: (draws, c, d, h, w) of each tumor if its noise is drawn here; None: the device draws all noise.
    """

    batch: int
    shapes: Shapes
    rounded: bool
    latent_noise: tuple[int, ...] | None

    @cached_property
    def fields(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape of each part for one tumor, and its type."""
        shapes, hu = self.shapes, torch.int16 if self.rounded else torch.float32
        fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "hu": (shapes.box, hu),
            "hu_around": (shapes.around, torch.float32),
            "hu_near": (shapes.near, torch.float32),
            "before": (shapes.near, torch.float32),
            "alpha": (shapes.near, torch.float32),
            "healthy": (shapes.around, torch.bool),
            "organ": (shapes.near, torch.bool),
            "neighbours": ((3, max(shapes.near), max(shapes.near)), torch.float32),
            "most_tumor": ((1,), torch.int64),
            "seed": ((), torch.int64),
            "background_hu": ((), torch.float32),
        }
        for name, (to, of) in _MATRICES.items():
            for axis in range(3):
                fields[f"{name}_{axis}"] = ((getattr(shapes, to)[axis], getattr(shapes, of)[axis]), torch.float32)
        if self.latent_noise is not None:
            fields |= {"latent_noise": (self.latent_noise, torch.float32), "noise": (shapes.near, torch.float32)}
        return fields

    @cached_property
    def _offsets(self) -> tuple[dict[str, int], int]:
        """Where each part begins, and where all of it ends, in bytes."""
        offsets, end = {}, 0
        for name, (shape, dtype) in self.fields.items():
            offsets[name] = end
            end += -(-self.batch * prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        return offsets, end

    @property
    def nbytes(self) -> int:
        """Of a block."""
        return self._offsets[1]

    def views(self, block: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of a block, uint8 (bytes,); the batch is their first axis."""
        offsets, views = self._offsets[0], {}
        for name, (shape, dtype) in self.fields.items():
            bytes_ = self.batch * prod(shape) * dtype.itemsize
            views[name] = block[offsets[name] : offsets[name] + bytes_].view(dtype).view(self.batch, *shape)
        return views

    def matrices(self, views: dict[str, torch.Tensor], name: str) -> list[torch.Tensor]:
        """Those of a product along z, y and x."""
        return [views[f"{name}_{axis}"] for axis in range(3)]


def pack(sketches: Sequence[Sketch], layout: Layout, block: torch.Tensor) -> None:
    """Writes sketches into a block.

    Args:
        sketches: as many as the layout's batch, with HU as it has them.
        layout: whose shapes hold them.
        block: uint8 (layout.nbytes,), on the CPU; everything in it is overwritten.
    """
    views = {name: view.numpy() for name, view in layout.views(block).items()}

    def put(number: int) -> None:
        for name, values in _parts(sketches[number], layout).items():
            target = views[name][number, ...]  # a view, of numbers too
            target[tuple(map(slice, values.shape))] = values
            for axis, size in enumerate(values.shape):
                target[(slice(None),) * axis + (slice(size, None),)] = 0

    if len(sketches) == 1:
        put(0)
        return
    # Mostly copies of megabytes, which one thread makes more slowly than memory can.
    with ThreadPoolExecutor(min(len(sketches), os.cpu_count() or 1)) as threads:
        list(threads.map(put, range(len(sketches))))


def _parts(sketch: Sketch, layout: Layout) -> dict[str, np.ndarray]:
    grid, spacing = sketch.grid, np.asarray(sketch.grid.spacing_mm)
    parts = {
        "hu": sketch.hu,
        "hu_around": in_hu(sketch.hu_of(sketch.around)),
        "hu_near": in_hu(sketch.hu_of(sketch.near)),
        "before": in_hu(sketch.before),
        "alpha": sketch.alpha,
        "healthy": sketch.healthy,
        "organ": sketch.organ,
        "most_tumor": np.array([np.ravel_multi_index(sketch.most_tumor(), grid.size)]),
        # Seeds may have any number of digits.
        "seed": np.random.SeedSequence(sketch.spec.seed).generate_state(1, np.uint64).view(np.int64)[0],
        "background_hu": np.float32(sketch.spec.background_hu),
    }
    products = {
        "network_of_box": grid.network_from_scan(sketch.box, repeat_rim=True),
        "network_of_near": grid.network_from_scan(sketch.near, repeat_rim=False),
        "around_of_network": grid.scan_from_network(sketch.around),
        "near_of_network": grid.scan_from_network(sketch.near),
    }
    for name, matrices in products.items():
        parts |= {f"{name}_{axis}": matrix for axis, matrix in enumerate(matrices)}
    sigmas = {"even": EVEN_MM / spacing, "mean": np.maximum(SMOOTHING_MM / spacing, 1)}
    for where, box in (("around", sketch.around), ("near", sketch.near)):
        for axis, size in enumerate(box_shape(box)):
            for what, sigma in sigmas.items():
                parts[f"{what}_{where}_{axis}"] = gaussian_matrix(size, float(sigma[axis]), TRUNCATE)
    longest = max(box_shape(sketch.near))
    parts["neighbours"] = np.zeros((3, longest, longest), np.float32)
    for axis, size in enumerate(box_shape(sketch.near)):
        parts["neighbours"][axis, :size, :size] = neighbours_matrix(size)
    if layout.latent_noise is not None:
        latent, noise = (sketch.spec.generator(stream) for stream in (SeedStream.LATENT, SeedStream.NOISE))
        parts["latent_noise"] = latent.standard_normal(layout.latent_noise, dtype=np.float32)
        parts["noise"] = noise.standard_normal(sketch.alpha.shape, dtype=np.float32)
    return parts
