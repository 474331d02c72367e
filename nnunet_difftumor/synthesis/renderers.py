"""From a name to a renderer, organ by organ: the one way for scans, banks, live tumors, previews and replays.

A choice is made and checked before anything is loaded. Imports torch for diffusion only.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS, STAGES
from nnunet_difftumor.generative.weights_folder import default_weights_folder, organs_with_weights, own_weights
from nnunet_difftumor.names import check_plain_name, nearest_name
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.networks.modes import EXACT
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor, Renderer, Site
from nnunet_difftumor.synthesis.size_bands import stage_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, Volume

if TYPE_CHECKING:
    import numpy as np

    from nnunet_difftumor.synthesis.networks.diffusion import LoadedBatch
    from nnunet_difftumor.synthesis.networks.sketch import Sketch
    from nnunet_difftumor.synthesis.networks.view import NetworkView
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights

RENDERERS = ("handcrafted", "diffusion")


@dataclass(frozen=True)
class RendererChoice:
    """What draws the tumors of which organ, known to be possible, and not loaded yet.

    Attributes:
        name: one of `RENDERERS`.
        weights: of the diffusion models, by the organ's name; empty for hand-crafted tumors.
        stages: of the diffusion models that may be needed.
        device: of the diffusion models, cpu or cuda.
        threads: of torch on the CPU; None: as torch has it.
        mode: of the diffusion models, "exact" or "fast", see `DiffusionRenderer`.
        sampler_steps: of models that sample by DDIM; None: as their weights say.
    """

    name: str
    weights: "Mapping[str, DiffusionWeights]" = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None
    mode: str = EXACT
    sampler_steps: int | None = None

    def on(self, device: str, *, mode: str) -> "RendererChoice":
        """The same on another device, drawn in a mode."""
        return replace(self, device=device, mode=mode)

    def adapted(self, spec: TumorSpec) -> TumorSpec:
        """What a preset drew, as a spec for this renderer."""
        if not self.weights:
            return spec
        from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion

        return as_diffusion(spec)

    def views(self) -> "dict[tuple[str, str], NetworkView]":
        """What the model of each (organ, stage) sees of a scan.

        Raises:
            InputError: for descriptions that are missing, damaged or wrong.
        """
        return {(organ, stage): found.view(stage) for organ, found in self.weights.items() for stage in self.stages}

    def files(self) -> dict[str, list[dict[str, Any]]]:
        """JSON-ready: the recorded files of weights by the organ's name."""
        return {organ: found.record(self.stages) for organ, found in self.weights.items()}

    def weights_organs(self) -> dict[str, str]:
        """JSON-ready: whose diffusion models draw, by the organ's name; empty for hand-crafted tumors."""
        return {organ: found.organ for organ, found in self.weights.items()}

    def notes(self) -> list[str]:
        """A line for each organ in which models of another name draw, and for weights that were trained too little."""
        doubts = [line for found in self.weights.values() for line in found.notes(self.stages)]
        return [*notes_on_weights(self.weights_organs()), *dict.fromkeys(doubts)]

    def arguments(self) -> dict[str, Any]:
        """JSON-ready: of `open_diffusion`, which opens this choice in another process."""
        folders = {str(found.folder) for found in self.weights.values()}
        return {
            "weights_folder": folders.pop(),
            "organs": self.weights_organs(),
            "stages": list(self.stages),
            "device": self.device,
            "mode": self.mode,
            "sampler_steps": self.sampler_steps,
        }

    def open(self, specs: Collection[TumorSpec] | None = None) -> Renderer:
        """The renderer, with its models loaded; models of one folder share their autoencoder.

        Args:
            specs: the tumors that it is to render, if they are known: only the stages that they need are loaded.

        Raises:
            InputError: for weights that are missing, damaged or do not fit together.
        """
        if not self.weights:
            return HandcraftedRenderer()
        from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
        from nnunet_difftumor.synthesis.networks.weights import load_models

        stages = self.stages if specs is None else sorted({stage_of(spec.size_class) for spec in specs})
        models = load_models(self.weights.values(), stages)
        opened = {
            found.organ: DiffusionRenderer(
                {stage: models[found.organ, stage] for stage in stages},
                organ=found.organ,
                weights=found.record(stages),
                device=self.device,
                threads=self.threads,
                mode=self.mode,
                sampler_steps=self.sampler_steps,
            )
            for found in self.weights.values()
        }
        if len(opened) == 1:
            return next(iter(opened.values()))
        return OrganRenderers({organ: opened[found.organ] for organ, found in self.weights.items()})


class OrganRenderers:
    """Draws the tumors of every organ with a renderer of its own; organs with the same weights share one.

    Args:
        renderers: by the organ's name.
    """

    def __init__(self, renderers: Mapping[str, Renderer]) -> None:
        self.renderers = dict(renderers)
        self.name = next(iter(self.renderers.values())).name

    def region(self, volume: Volume, spec: TumorSpec) -> Box:
        return self._of(spec).region(volume, spec)

    def render(self, patches: Sequence[Patch], specs: Sequence[TumorSpec]) -> list[RenderedTumor]:
        """Renders each spec into its patch; those of one organ together."""
        rendered: dict[int, RenderedTumor] = {}
        for organ in dict.fromkeys(spec.organ for spec in specs):
            numbers = [i for i, spec in enumerate(specs) if spec.organ == organ]
            found = self._of(specs[numbers[0]]).render([patches[i] for i in numbers], [specs[i] for i in numbers])
            rendered |= dict(zip(numbers, found, strict=True))
        return [rendered[i] for i in range(len(specs))]

    def self_test(self, *, batch: int) -> list[str]:
        """As `DiffusionRenderer.self_test`, of all."""
        once = {id(renderer): renderer for renderer in self.renderers.values()}
        return list(dict.fromkeys(line for renderer in once.values() for line in renderer.self_test(batch=batch)))

    def sketch(self, site: Site, patch: Patch) -> "Sketch":
        """As `DiffusionRenderer.sketch`."""
        return self._of(site.spec).sketch(site, patch)

    def draw(self, sketches: "Sequence[Sketch]") -> "list[np.ndarray]":
        """As `DiffusionRenderer.draw`; every one of them is a diffusion renderer."""
        return self.draw_loaded(sketches, self.load(sketches))

    def load(self, sketches: "Sequence[Sketch]") -> "list[tuple[Renderer, list[int], list[LoadedBatch]]]":
        """As `DiffusionRenderer.load`, organ by organ."""
        numbers: dict[str, list[int]] = {}
        for number, sketch in enumerate(sketches):
            numbers.setdefault(sketch.spec.organ, []).append(number)
        loaded = []
        for found in numbers.values():
            renderer = self._of(sketches[found[0]].spec)
            loaded.append((renderer, found, renderer.load([sketches[number] for number in found])))
        return loaded

    def draw_loaded(
        self, sketches: "Sequence[Sketch]", loaded: "list[tuple[Renderer, list[int], list[LoadedBatch]]]"
    ) -> "list[np.ndarray]":
        """As `DiffusionRenderer.draw_loaded`."""
        drawn: dict[int, np.ndarray] = {}
        for renderer, numbers, batches in loaded:
            found = renderer.draw_loaded([sketches[number] for number in numbers], batches)
            drawn |= dict(zip(numbers, found, strict=True))
        return [drawn[number] for number in range(len(sketches))]

    def record(self) -> dict[str, Any]:
        return {organ: renderer.record() for organ, renderer in self.renderers.items()}

    def _of(self, spec: TumorSpec) -> Renderer:
        if spec.organ not in self.renderers:
            raise InputError(f"tumor spec: organ is {spec.organ!r}, expected one of {', '.join(self.renderers)}")
        return self.renderers[spec.organ]


def choose_renderer(
    name: str,
    *,
    organs: Sequence[str],
    sizes: Collection[str],
    weights: Path | None = None,
    weights_organ: str | Mapping[str, str] | None = None,
    device: str = "cpu",
    mode: str = EXACT,
    sampler_steps: int | None = None,
    settings: str | None = None,
) -> RendererChoice:
    """Checks that a renderer can draw tumors of these sizes in every one of the organs.

    Args:
        name: one of `RENDERERS`.
        organs: their names.
        sizes: size classes that will be asked for.
        weights: folder of weights; None: the default one.
        weights_organ: whose weights draw in all of them, or that by the organ's name; None, and organs that are not
            named: their own (`own_weights`).
        device: cpu or cuda.
        mode: "exact" or "fast".
        sampler_steps: of models that sample by DDIM; None: as their weights say.
        settings: the part of a file that says all this, for messages; None: arguments say it.

    Raises:
        InputError: for an unknown renderer, an organ without weights of its own of which `weights_organ` says nothing,
            weights that are missing or not what their names say, no such device, or steps that the models cannot take.
    """
    if name not in RENDERERS:
        raise InputError(f"`renderer` is {name!r}, expected one of {', '.join(RENDERERS)}")
    if name == "handcrafted":
        return RendererChoice(name)
    from nnunet_difftumor.synthesis.networks.diffusion import check_device
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights

    folder_option = "`weights`" if settings is None else f'"weights_folder" in {settings}'
    folder = default_weights_folder(option=folder_option) if weights is None else Path(weights)
    drawn_by = _organs_of_weights(organs, weights_organ, folder=folder, settings=settings)
    chosen = {organ: DiffusionWeights(folder, drawn_by[organ], folder_option) for organ in organs}
    needed = {stage_of(size) for size in sizes}
    stages = tuple(stage for stage in STAGES if stage in needed)
    for found in chosen.values():
        found.check(stages, others_possible=settings is None and len(organs) == 1)
        if sampler_steps is not None:
            found.check_sampler_steps(sampler_steps, stages)
    check_device(device)
    return RendererChoice(name, chosen, stages, device, mode=mode, sampler_steps=sampler_steps)


def recorded_renderer(
    record: Mapping[str, Any],
    *,
    organ: str,
    manifest: str | Path,
    weights: Path | None = None,
    device: str | None = None,
) -> RendererChoice:
    """The renderer of a manifest, with the same weights, and the same device if no other one is given.

    Args:
        record: what `Renderer.record` gave.
        organ: that it draws in.
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

    folder = default_weights_folder() if weights is None else Path(weights)
    found = DiffusionWeights(folder, record["organ"])
    check_recorded(record["weights"], folder, manifest=manifest)
    check_device(device or record["device"])
    return RendererChoice(
        record["name"],
        {organ: found},
        STAGES,
        device or record["device"],
        record["threads"],
        # Before there were modes, all tumors were drawn exactly.
        record.get("mode", EXACT),
        record.get("sampler_steps"),
    )


def open_diffusion(
    *,
    weights_folder: str,
    organs: Mapping[str, str],
    stages: Sequence[str],
    device: str,
    mode: str = EXACT,
    sampler_steps: int | None = None,
    gpu_memory_gb: float | None = None,
    threads: int | None = None,
    self_test_batch: int | None = None,
) -> Renderer:
    """Opens the choice that `RendererChoice.arguments` describes.

    Args:
        weights_folder: of the diffusion models.
        organs: whose models draw, by the organ's name.
        stages: early, late or both.
        device: cpu or cuda.
        mode, sampler_steps: as in `RendererChoice`.
        gpu_memory_gb: what may be taken of the GPU; None: what is needed.
        threads: of torch on the CPU; None: as torch has it.
        self_test_batch: test first whether the device computes rightly, with batches up to this size, and print what
            was found; None: do not.

    Raises:
        InputError: for missing or wrong weights, cuda where there is none, more memory than the GPU has, or a device
            that computes wrongly.
    """
    from nnunet_difftumor.synthesis.networks.diffusion import limit_gpu_memory
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights

    if device == "cuda" and gpu_memory_gb is not None:
        limit_gpu_memory(gpu_memory_gb)
    weights = {name: DiffusionWeights(Path(weights_folder), organ) for name, organ in organs.items()}
    opened: Any = RendererChoice("diffusion", weights, tuple(stages), device, threads, mode, sampler_steps).open()
    if self_test_batch is not None:
        for line in opened.self_test(batch=self_test_batch):
            print(line, flush=True)
    return opened


def notes_on_weights(weights_organs: Mapping[str, str]) -> list[str]:
    """A line for each organ in which models of another name draw, by the organ's name."""
    return [
        f"organ {organ}: drawn by the diffusion models of {name}"
        for organ, name in weights_organs.items()
        if name != organ
    ]


def parse_weights_organ(words: Sequence[str]) -> str | dict[str, str]:
    """Reads `NAME`, for all organs, or `ORGAN=NAME`, several possible, each for one.

    Raises:
        InputError: for anything else.
    """
    pairs = [word.split("=") for word in words]
    if len(words) == 1 and len(pairs[0]) == 1:
        return words[0]
    if any(len(pair) != 2 or not all(pair) for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        raise InputError(
            f"`weights_organ` is {' '.join(words)!r}, expected one name, for all organs, or ORGAN=NAME, each organ once"
        )
    return dict(pairs)


def _organs_of_weights(
    organs: Sequence[str], chosen: str | Mapping[str, str] | None, *, folder: Path, settings: str | None
) -> dict[str, str]:
    """Whose weights draw in each organ: the chosen ones, or else its own."""
    option = "`weights_organ`" if settings is None else f'"weights_organs" in {settings}'
    there = organs_with_weights(folder)
    names = tuple(dict.fromkeys((*PUBLISHED_ORGANS, *there)))
    choices = dict.fromkeys(organs, chosen) if isinstance(chosen, str) else dict(chosen or {})
    if unknown := sorted(set(choices) - set(organs)):
        raise InputError(f"{option} names {', '.join(unknown)}, expected some of {', '.join(organs)}")
    for name in choices.values():
        if check_plain_name(name, where=option) not in names:
            meant = nearest_name(name, names)
            raise InputError(
                f"{option} is {name!r}, expected one of {', '.join(names)}: {folder} has no weights of that name"
                + (f"; is {meant} meant?" if meant else "")
            )
    drawn_by = {organ: choices.get(organ) or own_weights(organ, there) for organ in organs}
    if missing := [organ for organ, name in drawn_by.items() if name is None]:
        first = missing[0]
        example = names[0] if len(organs) == 1 else f"{first}={names[0]}"
        meant = nearest_name(first, names)
        raise InputError(
            f"organ {first}: has no diffusion models of its own in {folder} (there: {', '.join(there) or 'none'})"
            + (f"; is {meant} meant? Otherwise " if meant else "; ")
            + f"choose with {option} which organ's models draw in it"
            + (
                f", for example {option} {example}"
                if settings is None
                else f', for example {{"{first}": "{names[0]}"}}'
            )
            + ", or train its own (docs/models.md)"
        )
    return {organ: name for organ, name in drawn_by.items() if name is not None}
