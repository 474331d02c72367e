"""What one synthetic tumor is: everything that is random about it, in physical units, as frozen, serialisable data."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn

import numpy as np

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.json_checks import is_integer, is_number

# Version 1 has fewer fields; where those of version 2 have no value, a tumor is what it was.
SCHEMA_VERSION = 2

Triple = tuple[float, float, float]
KINDS = ("tumor", "cyst", "haemangioma")


class SeedStream(IntEnum):
    """What the seed of a spec makes random; each has random numbers of its own. Numbers are never used again."""

    DISPLACEMENT = 0
    TEXTURE = 1
    RELIEF = 2
    NOISE = 3
    NOISE_OF_MASS_EFFECT = 4
    LATENT = 5


# Names of quantities, the least and the greatest value of each of their numbers, and that in words. The limits are far
# beyond any tumor: a file from elsewhere must not ask for memory without end.
RANGES = (
    (("centre_mm",), -1e4, 1e4, "three numbers within -10000 to 10000"),
    (("semi_axes_mm",), 0.1, 200, "three numbers from 0.1 to 200"),
    (("roughness_grain_mm", "texture_grain_mm"), 0.01, 200, "0.01 to 200"),
    (("edge_blur_mm",), 0.001, 50, "0.001 to 50"),
    (("deformation_mm", "texture_blur_mm", "growth_radius_mm", "capsule_mm", "wall_mm"), 0, 50, "0 to 50"),
    (("mass_effect_radius_mm",), 0, 400, "0 to 400"),
    (("background_hu", "contrast_hu", "core_contrast_hu"), -1e4, 1e4, "-10000 to 10000"),
    (("texture_sd_hu", "noise_sd_hu", "capsule_hu"), 0, 1e4, "0 to 10000"),
    (("roughness",), 0, 0.5, "0 to 0.5"),
    (("core_size",), 0, 1, "0 to 1"),
    (("mass_effect",), 0, 0.9, "0 to 0.9"),
    (("noise_correlation",), -1, 1, "three numbers within -1 to 1"),
    (("rotation",), -1.001, 1.001, "a unit quaternion (w, z, y, x)"),
)
_LENGTHS = {"centre_mm": 3, "semi_axes_mm": 3, "rotation": 4, "noise_correlation": 3}
# A seed has at most these bits, as many as NumPy's own.
_SEED_BITS = 128
_LONGEST_TEXT = 200
# The relief's control points between the centre and the tumor's farthest point; their number grows with the cube.
_MOST_GRAINS = 100


@dataclass(frozen=True)
class TumorSpec:
    """One tumor. Rendering a spec into the same scan gives the same voxels.

    Vectors are in the order of the array's axes (z, y, x).

    Attributes:
        organ: the organ's name.
        size_class: the band of sizes that it was drawn from: tiny, small, medium or large.
        centre_mm: distance from the centre of the first voxel, along the array's axes.
        semi_axes_mm: of the ellipsoid before its deformation, each > 0.
        rotation: unit quaternion (w, z, y, x) that turns the ellipsoid's axes into the array's.
        deformation_mm: standard deviation of the elastic displacement, >= 0.
        background_hu: intensity of the tissue that the contrast refers to.
        contrast_hu: mean of the tumor minus `background_hu`; negative is darker.
        texture_sd_hu: standard deviation of the texture inside, >= 0.
        texture_grain_mm: edge of a grain, > 0; at least one voxel (the scaling factor eta of Hu et al. at 1 mm).
        texture_blur_mm: standard deviation of the texture's blur, >= 0 (sigma_b of Hu et al. at 1 mm).
        edge_blur_mm: standard deviation of the edge's blur, > 0 (sigma_c of Hu et al.).
        seed: of everything random inside: displacement, roughness, texture, noise.
        kind: "tumor", or a benign look-alike that gets no label: "cyst", "haemangioma".
        roughness: standard deviation of the surface's fine relief, relative to the semi-axes, 0 to 0.5.
        roughness_grain_mm: distance of the relief's control points, > 0.
        exophytic: whether it may grow out of the organ, into fat.
        growth_radius_mm: of a ball that must find room where it grows out, 0 to 50; 0: fat counts voxel by voxel, which
            leaves ragged borders (version 1).
        noise_sd_hu: standard deviation of the scan's noise, which the tumor keeps; 0: the texture replaces it.
        noise_correlation: of neighbouring voxels' noise, along the array's axes, each within -1 to 1.
        core_size: size of a core of another intensity, relative to the tumor, 0 (none) to 1.
        core_contrast_hu: of the core relative to the rest; the mean stays what `contrast_hu` says.
        capsule_hu: brightness of the capsule (d in equation 8 of Hu et al.), 0: none.
        capsule_mm: thickness of the capsule, a shell inside the tumor's border, 0 to 50; 0: as wide as the blurred edge
            makes it, over the border (equations 6 and 7).
        mass_effect: how strongly the tissue around is pushed away (I / 100 in equation 5 of Hu et al.), 0 to 0.9.
        mass_effect_radius_mm: how far (gamma_max in equation 5).
        texture_spline: whether the texture's grains are interpolated by a cubic spline instead of cubic convolution.
        wall_mm: of a hollow organ: only what is at most this deep below its outer surface is organ to the tumor; 0: all
            of its mask is.
        fills_lumen: whether it may grow into the lumen of a hollow organ, where the mask has it.
        renderer: name of the renderer.
        schema_version: of this record.
    """

    organ: str
    size_class: str
    centre_mm: Triple
    semi_axes_mm: Triple
    rotation: tuple[float, float, float, float]
    deformation_mm: float
    background_hu: float
    contrast_hu: float
    texture_sd_hu: float
    texture_grain_mm: float
    texture_blur_mm: float
    edge_blur_mm: float
    seed: int
    kind: str = "tumor"
    roughness: float = 0.0
    roughness_grain_mm: float = 1.0
    exophytic: bool = False
    noise_sd_hu: float = 0.0
    noise_correlation: Triple = (0.0, 0.0, 0.0)
    core_size: float = 0.0
    core_contrast_hu: float = 0.0
    capsule_hu: float = 0.0
    mass_effect: float = 0.0
    mass_effect_radius_mm: float = 0.0
    texture_spline: bool = False
    growth_radius_mm: float = 0.0
    capsule_mm: float = 0.0
    wall_mm: float = 0.0
    fills_lumen: bool = False
    renderer: str = "handcrafted"
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION or isinstance(self.schema_version, bool):
            raise InputError(
                f"tumor spec: schema_version is {shown(self.schema_version)}, this version reads 1 and 2; "
                "replay it with the version of nnunet-difftumor that its manifest names"
            )
        for name in ("organ", "size_class", "renderer"):
            if not isinstance(getattr(self, name), str) or len(getattr(self, name)) > _LONGEST_TEXT:
                self._refuse(name, f"text of at most {_LONGEST_TEXT} characters")
        if self.kind not in KINDS:
            self._refuse("kind", f"one of {', '.join(KINDS)}")
        if not is_integer(self.seed) or not 0 <= self.seed < 1 << _SEED_BITS:
            self._refuse("seed", f"a whole number of at least 0, below 2^{_SEED_BITS}")
        for name in ("exophytic", "texture_spline", "fills_lumen"):
            if not isinstance(getattr(self, name), bool):
                self._refuse(name, "true or false")
        for names, least, greatest, expected in RANGES:
            for name in names:
                value = getattr(self, name)
                numbers = value if name in _LENGTHS and isinstance(value, tuple) else (value,)
                if len(numbers) != _LENGTHS.get(name, 1) or not all(
                    is_number(number) and least <= number <= greatest for number in numbers
                ):
                    self._refuse(name, expected)
        if not math.isclose(sum(value**2 for value in self.rotation), 1, abs_tol=1e-6):
            self._refuse("rotation", "a unit quaternion (w, z, y, x)")
        if self.roughness and max(self.semi_axes_mm) + self.deformation_mm > _MOST_GRAINS * self.roughness_grain_mm:
            self._refuse(
                "roughness_grain_mm", f"at least 1/{_MOST_GRAINS} of the longest semi-axis and `deformation_mm`"
            )

    def _refuse(self, name: str, expected: str) -> NoReturn:
        raise InputError(f"tumor spec: {name} is {shown(getattr(self, name))}, expected {expected}")

    def generator(self, stream: SeedStream) -> np.random.Generator:
        """The random numbers of one stream, always from their beginning."""
        # The displacement was there before there were streams.
        entropy = self.seed if stream is SeedStream.DISPLACEMENT else (self.seed, int(stream))
        return np.random.default_rng(entropy)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data; `from_dict` gives an equal spec."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TumorSpec":
        """Reads what `to_dict` wrote, also that of version 1, which is the same tumor in this version.

        Raises:
            InputError: for unknown or missing keys, other schema versions and impossible values.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"tumor spec: expected names with values, got {shown(record)}")
        fields = dataclasses.fields(cls)
        unknown = sorted(set(map(str, record)) - {field.name for field in fields})
        missing = sorted({field.name for field in fields if field.default is dataclasses.MISSING} - set(record))
        if unknown or missing:
            raise InputError(f"tumor spec: unknown keys {shown(unknown)}, missing keys {missing}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        if values.get("schema_version") == 1 and not isinstance(values["schema_version"], bool):
            values["schema_version"] = SCHEMA_VERSION
        return cls(**values)


@dataclass(frozen=True)
class NoRoom:
    """Why a tumor could not be placed: a value, not an error, since a scan may simply have no room."""

    organ: str
    size_class: str
    reason: str
