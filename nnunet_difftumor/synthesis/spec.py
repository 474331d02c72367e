"""What one synthetic tumor is: everything that is random about it, in physical units, as frozen, serialisable data."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_difftumor.errors import InputError

SCHEMA_VERSION = 1

Triple = tuple[float, float, float]


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
        texture_grain_vox: edge of a grain in voxels, >= 1 (the scaling factor eta of Hu et al.).
        texture_blur_vox: standard deviation of the texture's blur in voxels, >= 0 (sigma_b of Hu et al.).
        edge_blur_mm: standard deviation of the edge's blur, > 0 (sigma_c of Hu et al.).
        seed: of the displacement and of the texture.
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
    texture_grain_vox: float
    texture_blur_vox: float
    edge_blur_mm: float
    seed: int
    renderer: str = "handcrafted"
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise InputError(
                f"tumor spec: schema_version is {self.schema_version}, this version reads {SCHEMA_VERSION}; "
                "replay it with the version of nnunet-difftumor that its manifest names"
            )
        if not all(isinstance(text, str) for text in (self.organ, self.size_class, self.renderer)):
            raise InputError("tumor spec: organ, size_class and renderer must be text")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"tumor spec: seed must be a whole number of at least 0, got {self.seed!r}")
        for name, length in (("centre_mm", 3), ("semi_axes_mm", 3), ("rotation", 4)):
            if len(getattr(self, name)) != length:
                raise InputError(f"tumor spec: {name} has {len(getattr(self, name))} numbers, expected {length}")
        numbers = [*self.centre_mm, *self.semi_axes_mm, *self.rotation]
        numbers += [value for value in vars(self).values() if isinstance(value, float)]
        if not all(math.isfinite(number) for number in numbers):
            raise InputError(f"tumor spec: every number must be finite, got {self}")
        if min(self.semi_axes_mm) <= 0 or self.edge_blur_mm <= 0:
            raise InputError("tumor spec: semi_axes_mm and edge_blur_mm must be above 0")
        if min(self.deformation_mm, self.texture_sd_hu, self.texture_blur_vox) < 0 or self.texture_grain_vox < 1:
            raise InputError(
                "tumor spec: deformation_mm, texture_sd_hu and texture_blur_vox must be at least 0, texture_grain_vox 1"
            )
        if not math.isclose(sum(value**2 for value in self.rotation), 1, abs_tol=1e-6):
            raise InputError(f"tumor spec: rotation must be a unit quaternion, got {self.rotation}")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data; `from_dict` gives an equal spec."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TumorSpec":
        """Reads what `to_dict` wrote.

        Raises:
            InputError: for unknown or missing keys, other schema versions and impossible values.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"tumor spec: expected names with values, got {record!r}")
        fields = dataclasses.fields(cls)
        unknown = sorted(set(record) - {field.name for field in fields})
        missing = sorted({field.name for field in fields if field.default is dataclasses.MISSING} - set(record))
        if unknown or missing:
            raise InputError(f"tumor spec: unknown keys {unknown}, missing keys {missing}")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"tumor spec: a value has the wrong type ({error}) in {dict(record)}") from error


@dataclass(frozen=True)
class NoRoom:
    """Why a tumor could not be placed: a value, not an error, since a scan may simply have no room."""

    organ: str
    size_class: str
    reason: str
