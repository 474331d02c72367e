"""What `synthesize` is asked for: the options by the command line's names, and the checked settings made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.names import check_plain_name
from nnunet_difftumor.synthesis.look.organ_names import notes_on_organ
from nnunet_difftumor.synthesis.networks.modes import EXACT, FAST
from nnunet_difftumor.synthesis.organ import MOST_WALL_MM, UNNAMED_ORGAN, Organ
from nnunet_difftumor.synthesis.renderers import RendererChoice, choose_renderer
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.visibility import check_minimum

_MOST_LABEL = 32767


class SynthesisOptions(TypedDict, total=False):
    """What to draw, with the names of the command line; none is needed.

    Attributes:
        organ: name of the organ; in the preset "realistic" it decides shapes, contrast and growth (default: organ).
        organ_label: label value, or values, of the organ in the mask (default: the mask's only value).
        tumor_label: value of the tumors in the label map (default: one above the greatest of the mask).
        avoid_label: label value, or values, that tumors must not touch, such as real lesions.
        wall_mm: thickness of the wall of a hollow organ, in which tumors grow, in mm; 0: a solid organ (default: solid,
            or for an organ that is named like a hollow one its wall is measured).
        preset: name of a preset (default: realistic).
        size: tiny, small, medium, large, every (all of these in one scan) or mix (default).
        count: number of tumors (default: as the preset draws it).
        contrast_hu: contrast to the tissue around, or its least and greatest value (default: as the preset draws it).
        minimum_contrast_to_noise: tumors with less contrast, in units of the noise around, are refused and drawn again
            (default: none is refused; those below 0.5 are counted).
        clear_of_vessels: whether tumors of every size keep clear of vessels, not only tiny and small (default: no).
        seed: of everything random, from 0 on (default: 0).
        renderer: "handcrafted" (default), or "diffusion": shape and place by the preset, intensities by a model.
        weights_organ: whose diffusion models draw (default: the organ's own; one that has none needs it).
        fast: whether diffusion models draw in bfloat16, with noise made on the device (default: no).
        sampler_steps: of diffusion models of late tumors, which sample by DDIM (default: as their weights say).
    """

    organ: str
    organ_label: int | Sequence[int]
    tumor_label: int | None
    avoid_label: int | Sequence[int]
    wall_mm: float | None
    preset: str
    size: str
    count: int | None
    contrast_hu: float | Sequence[float] | None
    minimum_contrast_to_noise: float | None
    clear_of_vessels: bool
    seed: int
    renderer: str
    weights_organ: str | None
    fast: bool
    sampler_steps: int | None


@dataclass(frozen=True)
class SynthesisSettings:
    """The options, checked and complete, as manifests record them.

    Attributes are those of `SynthesisOptions`, but for
        organ_labels: values; empty: the mask's only value.
        avoid_labels: values.
        contrast_hu: least and greatest; None: as the preset draws it.
    """

    organ: str = UNNAMED_ORGAN
    organ_labels: tuple[int, ...] = ()
    tumor_label: int | None = None
    avoid_labels: tuple[int, ...] = ()
    wall_mm: float | None = None
    preset: str = "realistic"
    size: str = "mix"
    count: int | None = None
    contrast_hu: tuple[float, float] | None = None
    minimum_contrast_to_noise: float | None = None
    clear_of_vessels: bool = False
    seed: int = 0
    renderer: str = "handcrafted"
    weights_organ: str | None = None
    fast: bool = False
    sampler_steps: int | None = None

    @classmethod
    def of(cls, options: SynthesisOptions) -> "SynthesisSettings":
        """Checks options.

        Raises:
            InputError: naming the argument, for values that cannot be. What depends on the scan is checked with it.
        """
        chosen: dict[str, Any] = dict(options)
        for name in ("organ_label", "avoid_label"):
            given = chosen.pop(name, ())
            values = (given,) if isinstance(given, int) else tuple(given)
            if not all(0 < value <= _MOST_LABEL for value in values):
                raise InputError(
                    f"`{name}` is {list(values)}, expected values from 1 to {_MOST_LABEL} (0 is the background)"
                )
            chosen[f"{name}s"] = values
        contrast = chosen.pop("contrast_hu", None)
        if contrast is not None:
            interval = [contrast] if isinstance(contrast, int | float) else list(contrast)
            if not 1 <= len(interval) <= 2 or interval[0] > interval[-1]:
                raise InputError(f"`contrast_hu` is {interval}, expected one value, or the least and the greatest")
            chosen["contrast_hu"] = (interval[0], interval[-1])
        settings = cls(**chosen)
        if settings.count is not None and settings.count < 1:
            raise InputError(f"`count` is {settings.count}, expected at least 1")
        check_plain_name(settings.organ, where="`organ`")
        if settings.wall_mm is not None and not 0 <= settings.wall_mm <= MOST_WALL_MM:
            raise InputError(f"`wall_mm` is {settings.wall_mm:g}, expected 0 to {MOST_WALL_MM:g}")
        check_minimum(settings.minimum_contrast_to_noise)
        if settings.seed < 0:
            raise InputError(f"`seed` is {settings.seed}, expected at least 0")
        return settings

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for manifests."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def notes(self) -> list[str]:
        """What is to be known of the organ: that it has no shapes of its own, or is hollow."""
        return notes_on_organ(Organ(self.organ, (), 0, wall_mm=self.wall_mm), self.preset)

    def choose_renderer(self, *, weights: str | Path | None, device: str) -> RendererChoice:
        """What draws, or why it cannot draw what is asked for; no scan is needed to know that.

        Args:
            weights: folder of the diffusion models; None: the default one.
            device: of the diffusion models, cpu or cuda.

        Raises:
            InputError: for diffusion models that are missing or of another organ, a device that is not there, or a
                contrast, which a diffusion model decides by itself.
        """
        if self.renderer == "diffusion" and self.contrast_hu is not None:
            raise InputError("`contrast_hu`: a diffusion model decides the contrast by itself; leave the option out")
        return choose_renderer(
            self.renderer,
            organs=[self.organ],
            sizes=[self.size] if self.size in SIZE_BANDS_MM else SIZE_BANDS_MM,
            weights=None if weights is None else Path(weights),
            weights_organ=self.weights_organ,
            device=device,
            mode=FAST if self.fast else EXACT,
            sampler_steps=self.sampler_steps,
        )

    def is_recorded_as(self, record: Mapping[str, Any]) -> bool:
        """Whether a manifest's settings are these; one that is older than a setting has its default."""
        defaults = {
            "fast": False,
            "sampler_steps": None,
            "minimum_contrast_to_noise": None,
            "clear_of_vessels": False,
            "wall_mm": None,
        }
        return defaults | dict(record) == self.to_dict()

    def organ_in(self, labels: np.ndarray, where: str | Path) -> Organ:
        """The organ in a label map.

        Args:
            labels: integer (z, y, x).
            where: the file or argument with it, for messages.

        Raises:
            InputError: if the organ is not there, not clear, or the tumors' label is taken.
        """
        values = [int(value) for value in np.unique(labels) if value]
        if not values:
            raise InputError(f"{where}: the organ mask is empty (all voxels are 0); give a mask with the organ in it")
        wanted = self.organ_labels or tuple(value for value in values if value not in self.avoid_labels)
        if not self.organ_labels and len(wanted) != 1:
            raise InputError(f"{where}: holds the labels {values}; say with `organ_label` which of them is the organ")
        if not set(wanted) & set(values):
            raise InputError(f"{where}: no voxel has the organ label {list(wanted)}; the file holds {values}")
        tumor_label = self.tumor_label if self.tumor_label is not None else max(values) + 1
        if tumor_label in wanted or not 0 < tumor_label <= _MOST_LABEL:
            raise InputError(
                f"`tumor_label` is {tumor_label}, expected a value from 1 to {_MOST_LABEL} that is not the organ's"
            )
        if tumor_label in values and tumor_label not in self.avoid_labels:
            raise InputError(
                f"{where}: the tumors' label {tumor_label} is already in the mask; choose another `tumor_label`, or "
                f"say with `avoid_label` {tumor_label} that these are real tumors"
            )
        return Organ(self.organ, tuple(wanted), tumor_label, self.avoid_labels, self.wall_mm)
