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

Where a tumor goes is found on the CPU; what it looks like is drawn by a `DeviceProgram`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.weights import Description
from nnunet_difftumor.synthesis.networks.device_program import DeviceProgram
from nnunet_difftumor.synthesis.networks.modes import EXACT, FAST, MODES
from nnunet_difftumor.synthesis.networks.packing import Layout, Shapes, pack
from nnunet_difftumor.synthesis.networks.self_test import NOT_NEEDED, check_networks
from nnunet_difftumor.synthesis.networks.sketch import Sketch
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Site, site_of
from nnunet_difftumor.synthesis.size_bands import stage_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume, box_shape


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
        capsule_mm=0.0,
    )


@dataclass(frozen=True, eq=False)
class LoadedBatch:
    """Sketches on the device, waiting to be drawn together.

    Attributes:
        numbers: which of the sketches that were given.
        program: that draws them.
        block: uint8, on the device.
        copied: CUDA event after the copy; None on a CPU.
    """

    numbers: tuple[int, ...]
    program: DeviceProgram
    block: torch.Tensor
    copied: torch.cuda.Event | None = None


class DiffusionRenderer:
    """Renders tumors with the networks of one organ.

    Args:
        models: for each stage, early and late, the model and its description; a stage may be missing.
        organ: of the models, for manifests.
        weights: their files, for manifests.
        device: cpu or cuda.
        threads: of torch on the CPU; None: as torch has it. Another number rounds in another way.
        mode: "exact" is float32, and all noise comes from the spec's own generators on the CPU. "fast" multiplies in
            bfloat16, and draws noise on the device, from the spec's seed alone but with other numbers.
        sampler_steps: of DDIM, in place of those that the weights name; DDPM takes every step.

    Raises:
        InputError: for cuda where there is none, another mode, or steps that do not divide the schedule's.
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
        mode: str = EXACT,
        sampler_steps: int | None = None,
    ) -> None:
        check_device(device)
        if mode not in MODES:
            raise InputError(f"`mode` is {mode!r}, expected {' or '.join(MODES)}")
        self.device, self.threads = torch.device(device), threads or torch.get_num_threads()
        self.mode, self.sampler_steps, self._noise_on_device = mode, sampler_steps, mode == FAST
        self.models = {stage: (model.to(self.device).eval(), described) for stage, (model, described) in models.items()}
        self._samplers = {stage: self._sampler(*model) for stage, model in self.models.items()}
        self._copies = torch.cuda.Stream() if device == "cuda" else None
        self._spare: list[torch.Tensor] = []
        self.organ, self.weights = organ, list(weights)

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        """The networks' region, and what mass effect reaches."""
        return self._view(spec).region(volume, spec)

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch; those that fit go through the networks together.

        Deterministic on one device with one number of threads: the spec's seed makes the noise. Neighbours in the
        batch change a tumor by rounding at most.

        Raises:
            InputError: for a spec of another renderer or kind, a size without model, a scan of unknown orientation, a
                patch that is smaller than `region`, or too little memory on the GPU.
        """
        sites = [site_of(self._checked(patch, spec), spec) for patch, spec in zip(patches, specs, strict=True)]
        rendered = [site.unchanged() for site in sites]
        room = [number for number, site in enumerate(sites) if site.mask.any()]
        sketches = [self.sketch(sites[number], patches[number]) for number in room]
        for number, hu in zip(room, self.draw(sketches), strict=True):
            rendered[number] = sites[number].finished(hu)
        return rendered

    def sketch(self, site: Site, patch: Patch) -> Sketch:
        """What the networks are told of a tumor that has room, with a patch of `region`."""
        return self._view(site.spec).sketch(site, patch)

    def draw(self, sketches: Sequence[Sketch]) -> list[np.ndarray]:
        """HU of each sketch's `near` with the tumor, float32 (z, y, x).

        Raises:
            InputError: as `render`.
        """
        return self.draw_loaded(sketches, self.load(sketches))

    def load(self, sketches: Sequence[Sketch]) -> list[LoadedBatch]:
        """Brings sketches to the device, sorted into batches; while others are drawn, if another thread does it.

        Raises:
            InputError: as `render`.
        """
        batches: dict[tuple, list[int]] = {}
        for number, sketch in enumerate(sketches):
            shapes = Shapes.bucket(sketch) if self._fills_up else Shapes.of(sketch)[:2]
            batches.setdefault((stage_of(sketch.spec.size_class), shapes, sketch.hu.dtype), []).append(number)
        loaded = []
        for (stage, *_), numbers in batches.items():
            for part in _powers_of_two(numbers) if self._graphs else [numbers]:
                loaded.append(self._load(stage, tuple(part), [sketches[number] for number in part]))
        return loaded

    def draw_loaded(self, sketches: Sequence[Sketch], batches: Sequence[LoadedBatch]) -> list[np.ndarray]:
        """As `draw`, of what `load` made of the same sketches."""
        drawn: dict[int, np.ndarray] = {}
        for batch in batches:
            hu = self._draw(batch)
            for place, number in enumerate(batch.numbers):
                drawn[number] = hu[place][tuple(map(slice, box_shape(sketches[number].near)))]
        return [drawn[number] for number in range(len(sketches))]

    def self_test(self, *, batch: int) -> list[str]:
        """Tests whether the device computes as float32 on the CPU does, with each shape of networks once.

        Args:
            batch: tumors that are drawn together at most.

        Returns:
            A line for each, or why nothing is tested.

        Raises:
            InputError: if it computes wrongly.
        """
        if self.device.type == "cpu" and self.mode == EXACT:
            return [NOT_NEEDED]
        lines: dict[tuple, str] = {}
        for stage, (model, described) in self.models.items():
            size = described.diffusion.patch_size
            shapes = (tuple(size), *((name, tuple(one.shape)) for name, one in model.named_parameters()))
            if shapes not in lines:
                with numerics(self.mode, self.threads):
                    lines[shapes] = check_networks(
                        self._samplers[stage].model,
                        model,
                        patch_size=size,
                        mode=self.mode,
                        batches=sorted({1, 1 << (batch.bit_length() - 1)}) if self._graphs else (1,),
                        what=f"{self.organ}, {stage}",
                    )
        return list(lines.values())

    def record(self) -> dict[str, Any]:
        on_cpu = self.device.type == "cpu"
        return {
            "name": self.name,
            "mode": self.mode,
            "sampler_steps": self.sampler_steps,
            "device": self.device.type,
            "processor": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(self.device),
            "threads": self.threads,
            "organ": self.organ,
            "weights": self.weights,
        }

    @property
    def _graphs(self) -> bool:
        return self.device.type == "cuda"

    @property
    def _fills_up(self) -> bool:
        """Whether sketches are filled up to the shapes of a bucket: for graphs, and where those shape the noise."""
        return self._graphs or self.mode == FAST

    def _checked(self, patch: Patch, spec: TumorSpec) -> Patch:
        if spec.renderer != self.name:
            raise InputError(f"tumor spec: renderer is {spec.renderer!r}, expected {self.name!r}")
        if spec.kind != "tumor":
            raise InputError(f"tumor spec: kind is {spec.kind!r}; diffusion models draw tumors only")
        needed = self._view(spec).grid(spec, patch.spacing_mm, patch.direction).box(patch.scan_shape)
        if patch.hu.size and any(a.start < b.start or a.stop > b.stop for a, b in zip(needed, patch.box, strict=True)):
            raise InputError(f"patch: is {patch.box}, but the networks see {needed}; take the renderer's region")
        return patch

    def _model(self, size_class: str) -> tuple[LatentDiffusion, Description]:
        stage = stage_of(size_class)
        if stage not in self.models:
            raise InputError(
                f"tumor spec: size_class is {size_class}, which needs a model of the stage {stage}; there is only "
                f"{', '.join(self.models) or 'none'}"
            )
        return self.models[stage]

    def _view(self, spec: TumorSpec) -> NetworkView:
        model, described = self._model(spec.size_class)
        volumes, patch_size = described.volumes, described.diffusion.patch_size
        return NetworkView(volumes.axes, volumes.spacing_mm, patch_size, model.patch_multiples())

    def _sampler(self, model: LatentDiffusion, described: Description) -> FastSampler:
        settings = described.diffusion
        steps = (self.sampler_steps or settings.sampler_steps) if settings.sampler == "ddim" else None
        return FastSampler(
            model, sampler=settings.sampler, steps=steps, bfloat16=self.mode == FAST, graphs=self._graphs
        )

    def _load(self, stage: str, numbers: tuple[int, ...], sketches: Sequence[Sketch]) -> LoadedBatch:
        """One batch on its way to the device."""
        sampler, (model, described) = self._samplers[stage], self.models[stage]
        fill = Shapes.bucket if self._fills_up else Shapes.of
        shapes = reduce(Shapes.holding, map(fill, sketches))
        noise = None
        if not self._noise_on_device:
            noise = (sampler.draws, *model.latent_shape((1, 1, *sketches[0].grid.shape)))
        layout = Layout(len(sketches), shapes, rounded=sketches[0].hu.dtype == np.int16, latent_noise=noise)
        program = DeviceProgram(sampler, described.volumes.window_hu, layout)
        block = self._block(layout.nbytes)
        pack(sketches, layout, block)
        if self._copies is None:
            return LoadedBatch(numbers, program, block)
        with self._enough_memory(program), torch.cuda.stream(self._copies):
            block = block.to(self.device, non_blocking=True)
            return LoadedBatch(numbers, program, block, self._copies.record_event())

    def _block(self, nbytes: int) -> torch.Tensor:
        """Memory on the CPU, with anything in it."""
        if self._copies is not None:
            return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)  # torch keeps it for the next one
        # Pages that are new from the operating system cost more than what is written into them.
        kept = self._spare.pop() if self._spare else torch.empty(0, dtype=torch.uint8)
        return kept if len(kept) >= nbytes else torch.empty(nbytes, dtype=torch.uint8)

    def _draw(self, batch: LoadedBatch) -> np.ndarray:
        """HU of `near`, float32 (b, z, y, x)."""
        program = batch.program
        with self._enough_memory(program), torch.inference_mode(), numerics(self.mode, self.threads):
            if batch.copied is not None:
                stream = torch.cuda.current_stream()
                stream.wait_event(batch.copied)
                batch.block.record_stream(stream)
            drawn = program.sampler.replay_parts(program.parts(), batch.block, key=program)
            if self._copies is None:
                self._spare.append(batch.block)
                return drawn.numpy()
            host = torch.empty(drawn.shape, dtype=drawn.dtype, pin_memory=True)
            return host.copy_(drawn).numpy()

    @contextmanager
    def _enough_memory(self, program: DeviceProgram) -> Iterator[None]:
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            layout = program.layout
            size = " x ".join(str(layout.shapes.network[axis]) for axis in layout.shapes.axes)
            more = (
                "render fewer tumors at a time, down to a batch of 1" if layout.batch > 1 else "free the GPU's memory"
            )
            raise InputError(
                f"the GPU's memory is too small for a batch of {layout.batch} with a patch of {size} voxels: {more}, "
                "or use the CPU (`device` cpu)"
            ) from error


def _powers_of_two(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Parts of 2^n, the largest first: for every length there is a graph, so there must not be too many lengths."""
    while numbers:
        size = 1 << (len(numbers).bit_length() - 1)
        yield numbers[:size]
        numbers = numbers[size:]


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
def numerics(mode: str, threads: int) -> Iterator[None]:
    """How torch computes within it.

    Args:
        mode: "exact": sums in one order, by algorithms that give the same bits again; "fast": the quickest ones.
        threads: on the CPU; another number sums in another order.
    """
    before, exact = torch.get_num_threads(), mode == EXACT
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=not exact, deterministic=exact, allow_tf32=not exact):
            yield
    finally:
        torch.set_num_threads(before)
