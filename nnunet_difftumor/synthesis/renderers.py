"""The renderers by name: the one place where a name becomes a renderer. Imports torch for diffusion only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights_folder import default_weights_folder
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.patch import Renderer
from nnunet_difftumor.synthesis.spec import TumorSpec

if TYPE_CHECKING:
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights

RENDERERS = ("handcrafted", "diffusion")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class RendererChoice:
    """A renderer that is known to be possible, before it is known which tumors it shall render.

    Attributes:
        name: one of `RENDERERS`.
        weights: of the diffusion models; None for hand-crafted tumors.
        device: cpu or cuda.
        threads: of torch on the CPU; None: as torch has it.
    """

    name: str
    weights: "DiffusionWeights | None" = None
    device: str = "cpu"
    threads: int | None = None

    def adapted(self, spec: TumorSpec) -> TumorSpec:
        """What a preset drew, as a spec for this renderer."""
        if self.weights is None:
            return spec
        from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion

        return as_diffusion(spec)

    def open(self, specs: Sequence[TumorSpec]) -> Renderer:
        """The renderer, with everything that these tumors need.

        Raises:
            InputError: for weights that are missing, damaged or do not fit together.
        """
        if self.weights is None:
            return HandcraftedRenderer()
        from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
        from nnunet_difftumor.synthesis.networks.weights import stage_of

        stages = sorted({stage_of(spec.size_class) for spec in specs})
        return DiffusionRenderer.open(self.weights, stages=stages, device=self.device, threads=self.threads)


def choose_renderer(
    name: str,
    *,
    organ: str,
    size: str,
    weights: Path | None = None,
    weights_organ: str | None = None,
    device: str = "cpu",
) -> RendererChoice:
    """Checks that a renderer can draw what is asked for.

    Args:
        name: one of `RENDERERS`.
        organ: name of the organ.
        size: a size class, or "mix".
        weights: folder of weights; None: the default one.
        weights_organ: whose weights draw in an organ that has none of its own.
        device: cpu or cuda.

    Raises:
        InputError: for an unknown renderer, weights that are missing or of another organ, or no such device.
    """
    if name not in RENDERERS:
        raise InputError(f"renderer is {name!r}, expected one of {', '.join(RENDERERS)}")
    if name == "handcrafted":
        return RendererChoice(name)
    from nnunet_difftumor.synthesis.networks.diffusion import check_device
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights, organ_of_weights, stages_of

    found = DiffusionWeights(_folder(weights), organ_of_weights(organ, chosen=weights_organ))
    found.check(stages_of(size))
    check_device(device)
    return RendererChoice(name, found, device)


def recorded_renderer(
    record: Mapping[str, Any], *, manifest: str | Path, weights: Path | None = None, device: str | None = None
) -> RendererChoice:
    """The renderer of a manifest, with the same weights, and the same device if no other one is given.

    Args:
        record: what `Renderer.record` gave.
        manifest: its file, for messages.
        weights: folder of weights; None: the default one.
        device: cpu or cuda; None: as recorded.

    Raises:
        InputError: if the weights are missing or others, or there is no such device.
    """
    if record["name"] == "handcrafted":
        return RendererChoice(record["name"])
    from nnunet_difftumor.synthesis.networks.diffusion import check_device
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights, check_recorded

    found = DiffusionWeights(_folder(weights), record["organ"])
    check_recorded(record["weights"], found.folder, manifest=manifest)
    check_device(device or record["device"])
    return RendererChoice(record["name"], found, device or record["device"], record["threads"])


def _folder(weights: Path | None) -> Path:
    return default_weights_folder(option="`weights`") if weights is None else Path(weights)
