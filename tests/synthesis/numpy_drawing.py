"""Diffusion tumors as NumPy and SciPy made them up to bdad173, one by one: what the device program has to do."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from nnunet_difftumor.generative.diffusion.samplers import noise_per_sample
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid
from nnunet_difftumor.synthesis.noise import even_tissue, measure_noise, noise_under
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Site, site_of
from nnunet_difftumor.synthesis.size_bands import stage_of
from nnunet_difftumor.synthesis.spec import SeedStream, TumorSpec
from nnunet_difftumor.synthesis.volume import box_within, grown_box

AROUND_MM = 20.0


@dataclass(frozen=True, eq=False)
class Job:
    """One tumor on its way through the networks.

    Attributes:
        site: where it goes.
        seen: the scan that the networks see, after mass effect.
        grid: their grid.
        volume, tumor: their input, (z, x, y): float32 in [-1, 1], and boolean.
    """

    site: Site
    seen: Patch
    grid: NetworkGrid
    volume: np.ndarray
    tumor: np.ndarray


def job_of(renderer, site: Site, patch: Patch) -> Job:
    """What the networks are told."""
    grid = renderer._view(site.spec).grid(site.spec, patch.spacing_mm, patch.direction)
    low, high = renderer._model(site.spec.size_class)[1].volumes.window_hu
    inner = box_within(site.patch.box, patch.box)
    hu, labels = patch.hu.copy(), patch.labels.copy()
    hu[inner], labels[inner] = site.hu, site.labels
    alpha = np.zeros(hu.shape, np.float32)
    alpha[inner][site.near] = site.alpha
    tumor = grid.to_network(alpha, patch.box, repeat_rim=False) >= 0.5
    if not tumor.any():
        # Smaller than the network's voxels, as what an organ leaves of a tumor can be on a fine grid.
        peak = np.unravel_index(int(site.alpha.argmax()), site.alpha.shape)
        first = [part.start for part in site.around.box]
        nearest = grid.nearest(np.add(peak, first) * np.asarray(patch.spacing_mm))
        tumor[tuple(nearest[axis] for axis in grid.axes)] = True
    volume = grid.to_network(hu, patch.box, repeat_rim=True)
    volume = np.clip((volume - low) * np.float32(2 / (high - low)) - 1, -1, 1)
    return Job(site, replace(patch, hu=hu, labels=labels), grid, volume, tumor)


def picture_of(renderer, job: Job) -> np.ndarray:
    """What the networks draw, in HU, on their grid."""
    stage = stage_of(job.site.spec.size_class)
    (model, described), sampler = renderer.models[stage], renderer._samplers[stage]
    low, high = described.volumes.window_hu
    with torch.inference_mode():
        volume, tumor = (torch.from_numpy(values)[None, None] for values in (job.volume, job.tumor))
        noise = noise_per_sample([job.site.spec.generator(SeedStream.LATENT)], model.latent_shape(volume.shape))
        noises = torch.stack([noise() for _ in range(sampler.draws)])
        decoded = sampler(volume, tumor, noises).clamp(-1, 1)[0, 0]
        return (low + (decoded + 1) * ((high - low) / 2)).numpy()


def render(renderer, patch: Patch, spec: TumorSpec) -> RenderedTumor:
    """One tumor."""
    site = site_of(patch, spec)
    if not site.mask.any():
        return site.unchanged()
    job = job_of(renderer, site, patch)
    return job.site.blended(tissue_of(job, picture_of(renderer, job)))


def tissue_of(job: Job, picture: np.ndarray) -> np.ndarray:
    """T, float32 of `site.near`: the picture there, at the intensity of the scan and with its noise."""
    site, organ, spacing = job.site, job.seen.organ, job.seen.spacing_mm
    own = site.around
    margin = np.ceil(AROUND_MM / np.asarray(spacing)).astype(int)
    # No wider than the picture.
    limits = zip(grown_box(own.box, margin, own.scan_shape), job.grid.box(own.scan_shape), strict=True)
    box = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in limits)
    around, inner = job.seen.part(box), box_within(own.box, box)
    drawn = job.grid.to_scan(picture, box)
    tissue = drawn[inner].copy()

    healthy = organ.mask(around.labels)
    healthy[inner] = False
    even = even_tissue(around.hu, healthy, spacing, around_hu=site.spec.background_hu)
    noise, kept = (measure_noise(hu, even, spacing) for hu in (around.hu, drawn))
    if noise is None:  # too little tissue around to compare with
        return tissue
    tissue -= np.float32((drawn - around.hu)[even].mean(dtype=np.float64))
    if kept.sd_hu < noise.sd_hu:
        scans = noise_under(
            own.hu,
            organ.mask(own.labels),
            spacing,
            around_hu=site.spec.background_hu,
            noise=noise,
            rng=site.spec.generator(SeedStream.NOISE),
        )
        # Independent of what the model draws, so variances add.
        tissue += np.float32(np.sqrt(1 - (kept.sd_hu / noise.sd_hu) ** 2)) * scans
    return tissue
