"""An organ in a label map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Whose tumors grow in a wall around a lumen.
HOLLOW_ORGANS = ("colon",)


@dataclass(frozen=True)
class Organ:
    """How an organ and its tumors are labelled.

    Attributes:
        name: for example "liver".
        organ_labels: label values of healthy organ tissue.
        tumor_label: label value that a synthetic tumor gets.
        avoid_labels: label values of lesions (tumors, cysts) that no synthetic tumor may touch.
    """

    name: str
    organ_labels: tuple[int, ...]
    tumor_label: int
    avoid_labels: tuple[int, ...] = ()

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of healthy organ tissue."""
        return _any_of(labels, self.organ_labels)

    def lesions(self, labels: np.ndarray) -> np.ndarray:
        """Boolean mask of what no synthetic tumor may touch."""
        return _any_of(labels, self.avoid_labels)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal organ."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Organ":
        """Reads what `to_dict` wrote; other keys are left alone.

        Raises:
            KeyError, TypeError: for a record without one of the keys, or with other types.
        """
        name, organ_labels, tumor_label, avoid_labels = (
            record[key] for key in ("name", "organ_labels", "tumor_label", "avoid_labels")
        )
        whole = (tumor_label, *organ_labels, *avoid_labels)
        if not isinstance(name, str) or not all(isinstance(value, int) for value in whole):
            raise TypeError("an organ's name is text, label values are whole numbers")
        return cls(name, tuple(organ_labels), tumor_label, tuple(avoid_labels))


def _any_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask
