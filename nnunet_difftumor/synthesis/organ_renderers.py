"""The renderer of a server: the diffusion models of every organ of a dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Renderer
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume


class OrganRenderers:
    """A diffusion renderer for each organ.

    Args:
        renderers: by the organ's name in the dataset.
    """

    name = DiffusionRenderer.name

    def __init__(self, renderers: Mapping[str, Renderer]) -> None:
        self.renderers = dict(renderers)

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        return self._of(spec).region(volume, spec)

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        rendered: dict[int, RenderedTumor] = {}
        for organ in dict.fromkeys(spec.organ for spec in specs):
            numbers = [i for i, spec in enumerate(specs) if spec.organ == organ]
            found = self._of(specs[numbers[0]]).render([patches[i] for i in numbers], [specs[i] for i in numbers])
            rendered |= dict(zip(numbers, found, strict=True))
        return [rendered[i] for i in range(len(specs))]

    def record(self) -> dict[str, Any]:
        return {organ: renderer.record() for organ, renderer in self.renderers.items()}

    def _of(self, spec: TumorSpec) -> Renderer:
        if spec.organ not in self.renderers:
            raise InputError(f"tumor spec: organ is {spec.organ!r}, expected one of {', '.join(self.renderers)}")
        return self.renderers[spec.organ]


def open_renderers(
    *,
    weights_folder: str,
    organs: Mapping[str, str],
    stages: Sequence[str],
    device: str,
    gpu_memory_gb: float | None = None,
    threads: int | None = None,
) -> OrganRenderers:
    """Loads what a training may need.

    Args:
        weights_folder: of the diffusion models.
        organs: whose models draw, by the organ's name in the dataset.
        stages: early, late or both.
        device: cpu or cuda.
        gpu_memory_gb: what may be taken of the GPU; None: what is needed.
        threads: of torch on the CPU; None: as torch has it.

    Raises:
        InputError: for missing or wrong weights, cuda where there is none, or more memory than the GPU has.
    """
    if device == "cuda" and gpu_memory_gb is not None:
        _limit_memory(gpu_memory_gb)
    by_weights = {
        organ: DiffusionRenderer.open(
            DiffusionWeights(Path(weights_folder), organ), stages=stages, device=device, threads=threads
        )
        for organ in dict.fromkeys(organs.values())
    }
    return OrganRenderers({name: by_weights[organ] for name, organ in organs.items()})


def _limit_memory(gigabytes: float) -> None:
    import torch

    from nnunet_difftumor.synthesis.networks.diffusion import check_device

    check_device("cuda")
    there = torch.cuda.get_device_properties(0).total_memory / 1e9
    if gigabytes > there:
        raise InputError(f"gpu_memory_gb is {gigabytes:g} in difftumor.json, but the GPU has {there:.1f}; lower it")
    torch.cuda.set_per_process_memory_fraction(gigabytes / there)
