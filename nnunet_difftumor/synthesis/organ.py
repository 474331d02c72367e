"""An organ in a label map."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Organs whose tumors grow in a wall around a lumen, by a part of the name, and what is taken for the wall at most, in
# mm: about the upper limits of what is normal on CT (distended).
HOLLOW_ORGANS: Mapping[str, float] = {
    "esophagus": 5.0,
    "oesophagus": 5.0,
    "stomach": 7.0,
    "duodenum": 4.0,
    "bowel": 4.0,
    "intestine": 4.0,
    "colon": 5.0,
    "sigmoid": 5.0,
    "rectum": 5.0,
    "gallbladder": 4.0,
    "bladder": 5.0,
    "uterus": 15.0,
}

MOST_WALL_MM = 50.0
# What an organ is called of which nobody says which it is.
UNNAMED_ORGAN = "organ"


@dataclass(frozen=True)
class Organ:
    """How an organ and its tumors are labelled.

    Attributes:
        name: for example "liver".
        organ_labels: label values of healthy organ tissue.
        tumor_label: label value that a synthetic tumor gets.
        avoid_labels: label values of lesions (tumors, cysts) that no synthetic tumor may touch.
        wall_mm: thickness of the wall of a hollow organ, in which tumors grow; 0: a solid organ; None: solid, or by its
            name one of `HOLLOW_ORGANS`, whose wall is measured.
    """

    name: str
    organ_labels: tuple[int, ...]
    tumor_label: int
    avoid_labels: tuple[int, ...] = ()
    wall_mm: float | None = None

    @property
    def greatest_wall_mm(self) -> float:
        """What may be wall, in mm from the outer surface; 0 for a solid organ."""
        if self.wall_mm is not None:
            return self.wall_mm
        return next((mm for name, mm in HOLLOW_ORGANS.items() if name in self.name.lower()), 0.0)

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of healthy organ tissue."""
        return _any_of(labels, self.organ_labels)

    def lesions(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of what no synthetic tumor may touch."""
        return _any_of(labels, self.avoid_labels)

    def whole(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of the organ with all lesions in it, synthetic ones too."""
        return _any_of(labels, {*self.organ_labels, *self.avoid_labels, self.tumor_label})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal organ."""
        record = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        # Records of solid organs are what they were before there were hollow ones.
        if self.wall_mm is None and not self.greatest_wall_mm:
            del record["wall_mm"]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Organ":
        """Reads what `to_dict` wrote; other keys are left alone.

        Raises:
            KeyError, TypeError: for a record without one of the keys, or with other types.
        """
        name, organ_labels, tumor_label, avoid_labels = (
            record[key] for key in ("name", "organ_labels", "tumor_label", "avoid_labels")
        )
        wall_mm = record.get("wall_mm")
        whole = (tumor_label, *organ_labels, *avoid_labels)
        if not isinstance(name, str) or not all(isinstance(value, int) for value in whole):
            raise TypeError("an organ's name is text, label values are whole numbers")
        if not isinstance(wall_mm, int | float | None):
            raise TypeError("the thickness of an organ's wall is a number, or null")
        return cls(name, tuple(organ_labels), tumor_label, tuple(avoid_labels), wall_mm)


def _any_of(labels: np.ndarray, values: Collection[int]) -> np.ndarray:
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask
