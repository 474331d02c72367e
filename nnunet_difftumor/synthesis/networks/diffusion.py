"""The diffusion renderer: tumors that a latent diffusion model draws (Chen et al., CVPR 2024), blended into the scan.

What differs from the public code, and why:

- Shape, blend and label are those of the hand-crafted renderer: nothing changes beyond the reach of alpha, or outside
  of the organ. The public code blends up to 16 voxels around the tumor, and replaces all of a patch for pancreas.
- Inside, T is the decoded picture, moved to the intensity of this scan: an autoencoder reproduces no tissue exactly,
  and what it makes brighter in healthy tissue would be added to the contrast of every tumor. The picture's healthy
  tissue around the tumor tells by how much.
- Autoencoders smooth noise. What the picture has lost of it there is given back from the scan's own noise under the
  tumor; a picture as noisy as the scan stays as it is.

Adding the difference of the picture to the network's reconstruction of the scan instead would cost a second decoding,
add up the noise of both, and let the vessels that the tumor replaces shine through.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import noise_per_sample
from nnunet_difftumor.generative.weights import Description
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.noise import even_tissue, measure_noise, noise_under
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Site, site_of
from nnunet_difftumor.synthesis.size_bands import stage_of
from nnunet_difftumor.synthesis.spec import SeedStream, TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume, box_within, grown_box

# Healthy tissue up to this far from what the tumor changes tells how the picture differs from the scan.
_AROUND_MM = 20.0


def as_diffusion(spec: TumorSpec) -> TumorSpec:
    """The tumor as the diffusion renderer takes it: what the model decides is 0 in the spec."""
    return replace(
        spec,
        renderer=DiffusionRenderer.name,
        contrast_hu=0.0,
        texture_sd_hu=0.0,
        core_size=0.0,
        core_contrast_hu=0.0,
        capsule_hu=0.0,
    )


@dataclass(frozen=True, eq=False)
class _Job:
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


class DiffusionRenderer:
    """Renders tumors with the networks of one organ.

    Args:
        models: for each stage, early and late, the model and its description; a stage may be missing.
        organ: of the models, for manifests.
        weights: their files, for manifests.
        device: cpu or cuda.
        threads: of torch on the CPU; None: as torch has it. Another number rounds in another way.

    Raises:
        InputError: for cuda where there is none.
    """

    name = "diffusion"

    def __init__(
        self,
        models: Mapping[str, tuple[LatentDiffusion, Description]],
        *,
        organ: str,
        weights: Sequence[Mapping[str, Any]] = (),
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        check_device(device)
        self.device, self.threads = torch.device(device), threads or torch.get_num_threads()
        self.models = {stage: (model.to(self.device).eval(), described) for stage, (model, described) in models.items()}
        self._samplers = {stage: _sampler(*model) for stage, model in self.models.items()}
        self.organ, self.weights = organ, list(weights)

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        """The networks' region, and what mass effect reaches."""
        return self._view(spec).region(volume, spec)

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch; those with patches of equal size go through the networks together.

        Deterministic on one device with one number of threads: the spec's seed makes the noise. Neighbours in the
        batch change a tumor by rounding at most.

        Raises:
            InputError: for a spec of another renderer or kind, a size without model, a scan of unknown orientation, a
                patch that is smaller than `region`, or too little memory on the GPU.
        """
        rendered: dict[int, RenderedTumor] = {}
        batches: dict[tuple, dict[int, _Job]] = {}
        for number, (patch, spec) in enumerate(zip(patches, specs, strict=True)):
            site = site_of(self._checked(patch, spec), spec)
            if site.mask.any():
                job = self._job(site, patch)
                batches.setdefault((stage_of(spec.size_class), job.grid.shape), {})[number] = job
            else:
                rendered[number] = site.unchanged()
        for (stage, _), jobs in batches.items():
            pictures = self._draw(stage, list(jobs.values()))
            for (number, job), picture in zip(jobs.items(), pictures, strict=True):
                rendered[number] = job.site.blended(_tissue(job, picture))
        return [rendered[number] for number in range(len(specs))]

    def record(self) -> dict[str, Any]:
        on_cpu = self.device.type == "cpu"
        return {
            "name": self.name,
            "device": self.device.type,
            "processor": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(self.device),
            "threads": self.threads,
            "organ": self.organ,
            "weights": self.weights,
        }

    def _checked(self, patch: Patch, spec: TumorSpec) -> Patch:
        if spec.renderer != self.name:
            raise InputError(f"tumor spec: renderer is {spec.renderer!r}, expected {self.name!r}")
        if spec.kind != "tumor":
            raise InputError(f"tumor spec: kind is {spec.kind!r}; diffusion models draw tumors only")
        needed = self._view(spec).grid(spec, patch.spacing_mm, patch.direction).box(patch.scan_shape)
        if patch.hu.size and any(a.start < b.start or a.stop > b.stop for a, b in zip(needed, patch.box, strict=True)):
            raise InputError(f"patch: is {patch.box}, but the networks see {needed}; take the renderer's region")
        return patch

    def _model(self, spec: TumorSpec) -> tuple[LatentDiffusion, Description]:
        stage = stage_of(spec.size_class)
        if stage not in self.models:
            raise InputError(
                f"tumor spec: size_class is {spec.size_class}, which needs a model of the stage {stage}; there is only "
                f"{', '.join(self.models) or 'none'}"
            )
        return self.models[stage]

    def _view(self, spec: TumorSpec) -> NetworkView:
        model, described = self._model(spec)
        volumes, patch_size = described.volumes, described.diffusion.patch_size
        return NetworkView(volumes.axes, volumes.spacing_mm, patch_size, model.patch_multiples())

    def _job(self, site: Site, patch: Patch) -> _Job:
        grid = self._view(site.spec).grid(site.spec, patch.spacing_mm, patch.direction)
        low, high = self._model(site.spec)[1].volumes.window_hu
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
            tumor[grid.nearest(np.add(peak, first) * np.asarray(patch.spacing_mm))] = True
        volume = grid.to_network(hu, patch.box, repeat_rim=True)
        volume = np.clip((volume - low) * np.float32(2 / (high - low)) - 1, -1, 1)
        return _Job(site, replace(patch, hu=hu, labels=labels), grid, volume, tumor)

    def _draw(self, stage: str, jobs: Sequence[_Job]) -> list[np.ndarray]:
        """The decoded pictures in HU, float32 on the networks' grid."""
        (model, described), sampler = self.models[stage], self._samplers[stage]
        low, high = described.volumes.window_hu
        generators = [job.site.spec.generator(SeedStream.LATENT) for job in jobs]
        try:
            with torch.inference_mode(), reproducible(self.threads):
                volume = torch.from_numpy(np.stack([job.volume for job in jobs])[:, None]).to(self.device)
                tumor = torch.from_numpy(np.stack([job.tumor for job in jobs])[:, None]).to(self.device)
                noise = noise_per_sample(generators, model.latent_shape(volume.shape), device=self.device)
                noises = torch.stack([noise() for _ in range(sampler.draws)])
                decoded = sampler(volume, tumor, noises).clamp(-1, 1)[:, 0]
                return list((low + (decoded + 1) * ((high - low) / 2)).cpu().numpy())
        except torch.cuda.OutOfMemoryError as error:
            size = " x ".join(map(str, jobs[0].grid.shape))
            more = "render fewer tumors at a time, down to a batch of 1" if len(jobs) > 1 else "free the GPU's memory"
            raise InputError(
                f"the GPU's memory is too small for a batch of {len(jobs)} with a patch of {size} voxels: {more}, or "
                "use the CPU (`device` cpu)"
            ) from error


def _sampler(model: LatentDiffusion, described: Description) -> FastSampler:
    settings = described.diffusion
    steps = settings.sampler_steps if settings.sampler == "ddim" else None
    return FastSampler(model, sampler=settings.sampler, steps=steps)


def check_device(device: str) -> None:
    """Raises an InputError for a device that is not there."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"`device` is {device!r}, expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "`device` is cuda, but torch finds no CUDA device; use `device` cpu, or see `difftumor doctor`"
        )


def limit_gpu_memory(gigabytes: float) -> None:
    """Lets this process take no more of the GPU.

    Raises:
        InputError: for cuda where there is none, or more memory than the GPU has.
    """
    check_device("cuda")
    there = torch.cuda.get_device_properties(0).total_memory / 1e9
    if gigabytes > there:
        raise InputError(f"gpu_memory_gb is {gigabytes:g} in difftumor.json, but the GPU has {there:.1f}; lower it")
    torch.cuda.set_per_process_memory_fraction(gigabytes / there)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Sums in one order: a fixed number of threads, and on the GPU algorithms that give the same bits again."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)


def _tissue(job: _Job, picture: np.ndarray) -> np.ndarray:
    """T, float32 of `site.near`: the picture there, at the intensity of the scan and with its noise."""
    site, organ, spacing = job.site, job.seen.organ, job.seen.spacing_mm
    own = site.around
    margin = np.ceil(_AROUND_MM / np.asarray(spacing)).astype(int)
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
