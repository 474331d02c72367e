"""What renders the lesions of a bank: one renderer per organ, since a diffusion model draws in one organ only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stages import ORGANS, STAGES
from nnunet_difftumor.generative.weights_folder import default_weights_folder
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.patch import Renderer
from nnunet_difftumor.synthesis.renderers import RENDERERS
from nnunet_difftumor.synthesis.spec import TumorSpec

if TYPE_CHECKING:
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights


@dataclass(frozen=True)
class BankRenderers:
    """Renderers that are known to be possible, and not opened yet.

    Attributes:
        name: one of `RENDERERS`.
        organs: names.
        weights: of the diffusion models, by the organ's name; empty for hand-crafted tumors.
        stages: of the diffusion models that are needed.
        device: of the diffusion models, cpu or cuda.
    """

    name: str
    organs: tuple[str, ...]
    weights: "Mapping[str, DiffusionWeights]" = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    device: str = "cpu"

    def adapted(self, spec: TumorSpec) -> TumorSpec:
        """What a preset drew, as a spec for these renderers."""
        if not self.weights:
            return spec
        from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion

        return as_diffusion(spec)

    def record(self) -> dict[str, Any]:
        """JSON-ready: what voxels depend on besides scan, spec and versions, but for the device's rounding."""
        files = {organ: found.record(self.stages) for organ, found in self.weights.items()}
        return {"renderer": self.name, "weights": files}

    def open(self) -> dict[str, Renderer]:
        """The renderers by the organ's name; organs with the same weights share one.

        Raises:
            InputError: for weights that are damaged or do not fit together.
        """
        if not self.weights:
            return dict.fromkeys(self.organs, HandcraftedRenderer())
        from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer

        opened: dict[str, Renderer] = {}
        for found in self.weights.values():
            if found.organ not in opened:
                opened[found.organ] = DiffusionRenderer.open(found, stages=self.stages, device=self.device)
        return {organ: opened[found.organ] for organ, found in self.weights.items()}


def choose_bank_renderers(
    name: str,
    organs: Sequence[str],
    *,
    sizes: Sequence[str],
    weights: Path | None = None,
    weights_organ: str | None = None,
    device: str = "cpu",
) -> BankRenderers:
    """Checks that a renderer can draw these sizes in every one of the organs.

    Args:
        name: one of `RENDERERS`.
        organs: their names.
        sizes: size classes that will be asked for.
        weights: folder of weights; None: the default one.
        weights_organ: whose weights draw in the organs that have none of their own.
        device: cpu or cuda.

    Raises:
        InputError: for an unknown renderer, an organ without weights, weights that are missing or of another organ,
            or no such device.
    """
    if name not in RENDERERS:
        raise InputError(f"renderer is {name!r}, expected one of {', '.join(RENDERERS)}")
    if name == "handcrafted":
        return BankRenderers(name, tuple(organs))
    from nnunet_difftumor.synthesis.networks.diffusion import check_device
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights, stage_of

    folder = default_weights_folder(option="`weights`") if weights is None else Path(weights)
    chosen = {organ: DiffusionWeights(folder, _drawn_by(organ, weights_organ)) for organ in organs}
    if weights_organ not in (None, *(found.organ for found in chosen.values())):
        raise InputError(
            f"`weights_organ` is {weights_organ}, but {', '.join(organs)} have weights of their own; leave it out"
        )
    needed = {stage_of(size) for size in sizes}
    stages = tuple(stage for stage in STAGES if stage in needed)
    for found in chosen.values():
        # One by one: what to do about a missing stage alone, `--size`, is not an option here.
        for stage in stages:
            found.check([stage])
    check_device(device)
    return BankRenderers(name, tuple(organs), chosen, stages, device)


def _drawn_by(organ: str, weights_organ: str | None) -> str:
    """Unlike `organ_of_weights`, takes a choice that is meant for other organs beside this one."""
    named = [name for name in ORGANS if name in organ.lower()]
    if len(named) == 1:
        return named[0]
    if weights_organ is None:
        raise InputError(
            f"organ {organ}: diffusion models are for {', '.join(ORGANS)}; say with `weights_organ` whose tumors shall "
            "grow in it"
        )
    if weights_organ not in ORGANS:
        raise InputError(f"`weights_organ` is {weights_organ!r}, expected one of {', '.join(ORGANS)}")
    return weights_organ
