"""Scans on disk and the command line for the tests of `difftumor synthesize`."""

from pathlib import Path

import ct_files
import nibabel as nib
import numpy as np

SPACING_XYZ = (2.0, 2.0, 2.5)
RAS = np.diag([*SPACING_XYZ, 1.0])
LPS = np.diag([-2.0, -2.0, 2.5, 1.0])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag(SPACING_XYZ)
OBLIQUE[:3, 3] = -100, 50, 1536.5


def save(path, stored, *, affine=RAS, **kwargs) -> Path:
    """`ct_files.save` with these scans' voxels, in a folder that it makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return ct_files.save(path, stored, affine=affine, **kwargs)


def body(shape_xyz=(48, 46, 40), *, radius_mm=32.0, spacing_xyz=SPACING_XYZ, seed=0):
    """A ball of liver (1) with a small spleen (3) beside it in fat, air around; HU and labels in (x, y, z) order."""
    middle = [(n - 1) / 2 * step for n, step in zip(shape_xyz, spacing_xyz, strict=True)]
    axes = np.meshgrid(
        *[np.arange(n) * step - m for n, step, m in zip(shape_xyz, spacing_xyz, middle, strict=True)], indexing="ij"
    )
    distance = np.sqrt(sum(axis**2 for axis in axes))
    labels = (distance <= radius_mm).astype(np.uint8)
    labels[:4, :4, :4] = 3
    hu = np.where(labels > 0, 110, -90) + np.random.default_rng(seed).normal(0, 12, shape_xyz)
    hu[:, :3] = -1000
    return np.rint(hu), labels


def command(case, output, *options) -> list[str]:
    ct, mask = case / "ct.nii.gz", case / "liver.nii.gz"
    return [str(part) for part in ("synthesize", ct, "--organ-mask", mask, "-o", output, *options)]


def files_below(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def content(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder)}
