"""NIfTI files with CT in them, for the tests of reading and writing."""

from pathlib import Path

import nibabel as nib
import numpy as np

RAS = np.diag([1.5, 2.0, 3.0, 1.0])
LPS = np.diag([-1.5, -2.0, 3.0, 1.0])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag([1.5, 2.0, 3.0])
OBLIQUE[:3, 3] = -100, 50, 1536.5
PERMUTED = np.array([[0, 0, 3.0, 7], [-1.5, 0, 0, 8], [0, 2.0, 0, 9], [0, 0, 0, 1]])
ORIENTATIONS = {"RAS": RAS, "LPS": LPS, "oblique": OBLIQUE, "coronal": PERMUTED}


def body_hu(shape_xyz=(9, 8, 7), seed=0) -> np.ndarray:
    """Whole HU values: air, fat, muscle and bone, in (x, y, z) order as on disk."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1000, -100, 55, 110, 400], shape_xyz) + rng.integers(-30, 30, shape_xyz)


def save(path, stored, *, affine=RAS, dtype=np.int16, slope=1.0, intercept=0.0, header=None) -> Path:
    """Writes stored values as they are, with this scaling in the header."""
    header = nib.Nifti1Header() if header is None else header
    header.set_data_dtype(dtype)
    header.set_data_shape(stored.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    image = nib.Nifti1Image(np.asarray(stored).astype(dtype), None, header)
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, path)
    return path
