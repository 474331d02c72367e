"""An anatomical phantom of the abdomen, made from a seed: for trying everything without any patient's data.

Body wall, skeleton, lung bases, liver with its vessel trees, kidneys, pancreas, spleen, stomach and bowel, with the
HU of a contrast CT, soft edges and noise of a soft-tissue kernel. It looks like a CT at first sight and no more: do not
judge a method's worth on it.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct import scan_from_array
from nnunet_difftumor.dataset_conversion.phantom_body.anatomy import (
    HALF_DEPTH_MM,
    HALF_WIDTH_MM,
    HEIGHT_MM,
    LABELS,
    Person,
    draw_abdomen,
)
from nnunet_difftumor.dataset_conversion.phantom_body.canvas import Canvas
from nnunet_difftumor.dataset_conversion.raw_dataset import RawCase, SourceCase, write_raw_dataset
from nnunet_difftumor.errors import InputError

SPACING_LIMITS_MM = (0.5, 8.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=6, metavar="N", help="healthy cases (default: %(default)s)")
    parser.add_argument(
        "--tumor-cases", type=int, default=2, metavar="N", help="cases with drawn liver lesions (default: %(default)s)"
    )


def convert(
    dataset_id: int,
    *,
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    cases: int = 6,
    tumor_cases: int = 2,
    seed: int = 0,
    spacing_mm: Sequence[float] = (2.0, 1.5, 1.5),
) -> Path:
    """Makes a raw dataset of phantoms.

    Args:
        dataset_id: 1 to 999.
        name: name of the dataset; by default Phantom.
        overwrite: replaces the dataset if it exists.
        dry_run: only say what would be done.
        cases: number of healthy cases, named phantom_000 and so on.
        tumor_cases: number of cases with one to three liver lesions, named phantom_tumor_000 and so on.
        seed: the same seed gives the same dataset.
        spacing_mm: voxel size (z, y, x).

    Returns:
        The dataset's folder.

    Raises:
        InputError: the arguments are wrong.
    """
    low, high = SPACING_LIMITS_MM
    if cases < 0 or tumor_cases < 0 or cases + tumor_cases == 0:
        raise InputError(f"cases {cases}, tumor cases {tumor_cases}: expected at least one in all")
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more")
    if not all(low <= step <= high for step in spacing_mm):
        raise InputError(f"spacing {tuple(spacing_mm)} mm: expected {low} to {high} mm along every axis")
    loads = {}
    for number in range(cases):
        load = functools.partial(_load, [seed, 0, number], spacing_mm, lesions=0)
        loads[f"phantom_{number:03d}"] = SourceCase(load)
    for number in range(tumor_cases):
        load = functools.partial(_load, [seed, 1, number], spacing_mm, lesions=1 + number % 3)
        loads[f"phantom_tumor_{number:03d}"] = SourceCase(load)
    return write_raw_dataset(
        loads,
        dataset_id,
        name="Phantom" if name is None else name,
        labels=LABELS,
        settings={"seed": seed, "spacing_mm": list(spacing_mm)},
        overwrite=overwrite,
        dry_run=dry_run,
        about={"description": "anatomical phantoms, not patients", "license": "CC0-1.0"},
    )


def _load(seed: list[int], spacing_mm: Sequence[float], *, lesions: int) -> RawCase:
    hu, labels = phantom_case(seed, spacing_mm=spacing_mm, lesions=lesions)
    z, y, x = spacing_mm
    affine = np.diag([-x, -y, z, 1.0])
    affine[:3, 3] = x * hu.shape[2] / 2, y * hu.shape[1] / 2, 0
    return RawCase(scan_from_array(hu, affine=affine), labels, f"phantom_case({seed}, lesions={lesions})")


def phantom_case(
    seed: int | Sequence[int], *, spacing_mm: Sequence[float] = (2.0, 1.5, 1.5), lesions: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one phantom. The same arguments give the same voxels.

    Args:
        seed: one or more numbers, which choose the person and everything else that is random.
        spacing_mm: voxel size (z, y, x), 0.5 to 8 mm. The grid follows from it and the person: about
            200 x 250 x 355 mm.
        lesions: number of hypodense ellipsoidal lesions in the liver, labelled liver_tumor.

    Returns:
        HU, float32 (z, y, x) of whole numbers, and labels, uint8, as in `LABELS`. The axes z, y, x point to the head,
        the back and the left.
    """
    person_rng, grid_rng, lesion_rng, noise_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
    )
    person = Person.draw(person_rng)
    # The anatomy is drawn in the mm of a person of average size.
    spacing = np.asarray(spacing_mm) / person.size
    size_mm = np.array((HEIGHT_MM, 2 * HALF_DEPTH_MM + 24, 2 * HALF_WIDTH_MM + 24))
    canvas = Canvas(size_mm=np.rint(size_mm / spacing) * spacing, spacing_mm=spacing, rng=grid_rng)
    draw_abdomen(canvas, person)
    for _ in range(lesions):
        _add_lesion(canvas, lesion_rng)
    sd_hu = noise_rng.uniform(14, 24)
    canvas.hu += ct_noise(canvas.hu.shape, spacing_mm, sd_hu=sd_hu, rng=noise_rng) * _noise_map(canvas)
    return np.rint(np.clip(canvas.hu, -1024, 3071)), canvas.labels


def ct_noise(shape, spacing_mm, *, sd_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with a power spectrum like that of filtered back-projection with a soft-tissue kernel.

    In the plane the power rises with the frequency f and is cut off softly: f * exp(-(f / f0)^2), with f0 = 0.35 / mm,
    limited by the grid; neighbouring slices are weakly correlated.

    Returns:
        float32 (z, y, x) of standard deviation sd_hu.
    """
    from scipy.ndimage import convolve1d

    white = rng.standard_normal(shape, np.float32)
    y, x = (np.fft.fftfreq(n, step) for n, step in zip(shape[1:], spacing_mm[1:], strict=True))
    frequency = np.hypot(y[:, None], x)
    amplitude = np.sqrt(frequency * np.exp(-((frequency / 0.35) ** 2)))
    noise = np.fft.ifft2(np.fft.fft2(white) * amplitude).real.astype(np.float32)
    noise = convolve1d(noise, [0.2, 0.6, 0.2], axis=0, mode="wrap")
    return noise * (sd_hu / noise.std())


def _noise_map(canvas: Canvas) -> np.ndarray:
    """More noise in the middle of the body, where the beam is weakest; little in the air."""
    level = np.sqrt((canvas.x / HALF_WIDTH_MM) ** 2 + (canvas.y / HALF_DEPTH_MM) ** 2)
    return (0.45 + 0.65 * np.exp(-((level / 0.85) ** 2))).astype(np.float32)


def _add_lesion(canvas: Canvas, rng: np.random.Generator) -> None:
    from scipy.ndimage import distance_transform_edt

    depth_mm = distance_transform_edt(canvas.labels == LABELS["liver"], sampling=canvas.spacing_mm)
    radius_mm = min(rng.uniform(5, 16), 0.8 * depth_mm.max())
    places = np.argwhere(depth_mm >= radius_mm)
    z, y, x = places[rng.integers(len(places))]
    centre = (canvas.x[x], canvas.y.ravel()[y], canvas.z.ravel()[z])
    semi_axes = radius_mm * rng.uniform(0.75, 1.2, 3)
    lesion = canvas.ellipsoid(centre, semi_axes, turn_degrees=rng.uniform(0, 180, 3)) + 0.08 * radius_mm * canvas.fine
    lesion = np.maximum(lesion, canvas.edge_mm / 2 - depth_mm)
    around_hu = np.median(canvas.hu[canvas.labels == LABELS["liver"]])
    canvas.paint(lesion, around_hu - rng.uniform(25, 55), label=LABELS["liver_tumor"])
