"""What a challenge is: its labels, the scores of a case, and those over all cases."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.ct import Scan
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.evaluation.case_files import CaseFiles


@dataclass(frozen=True)
class Challenge:
    """A challenge whose scores can be computed from label maps.

    Attributes:
        name: as it is asked for.
        title: as its organizers call it.
        source: where its definitions are published.
        labels: value in the label maps -> name.
        tumor: the value of tumors.
        definitions: score over all cases -> what it is, in the order of tables.
        of_case: scores of a case for strict JSON, from the true and the predicted label map, integers (z, y, x), and
            the voxel size in mm (z, y, x).
        over_cases: from the scores of every case those over all of them, under the names of `definitions`; None where
            there is nothing to measure.
        needed_in_truth: every true label map has at least one of these values, if there are any.
        remark: what cannot be computed, or differs.
        settings: numbers that were stated for it.
    """

    name: str
    title: str
    source: str
    labels: Mapping[int, str]
    tumor: int
    definitions: Mapping[str, str]
    of_case: Callable[[np.ndarray, np.ndarray, Sequence[float]], dict[str, Any]]
    over_cases: Callable[[Sequence[Mapping[str, Any]]], dict[str, float | None]]
    needed_in_truth: frozenset[int] = frozenset()
    remark: str = ""
    settings: Mapping[str, float] = field(default_factory=dict)

    def score(self, files: CaseFiles, truth: Scan, prediction: np.ndarray) -> dict[str, Any]:
        """Scores of a case for strict JSON.

        Args:
            files: that both label maps were read from; without a prediction nothing is predicted.
            truth: the true label map.
            prediction: the predicted one, (z, y, x).

        Raises:
            InputError: the label maps are not those of the challenge.
        """
        values = self._check_values(truth.hu, files.truth)
        if files.prediction is not None:
            self._check_values(prediction, files.prediction)
        if self.needed_in_truth and not values & self.needed_in_truth:
            names = " or ".join(self.labels[value] for value in sorted(self.needed_in_truth))
            raise InputError(
                f"{files.truth}: has no {names}, which {self.title} needs in every case; leave this one out, or "
                "evaluate without `challenge`"
            )
        try:
            return self.of_case(truth.hu, prediction, truth.spacing_mm)
        except InputError as error:
            raise InputError(f"{files.truth}: {error}") from error

    def _check_values(self, labels: np.ndarray, path: Path) -> set[int]:
        values = set(np.unique(labels).tolist())
        if unknown := sorted(values - {0} - self.labels.keys()):
            known = ", ".join(f"{value} ({name})" for value, name in self.labels.items())
            raise InputError(
                f"{path}: has the values {some(list(map(str, unknown)))}, but {self.title} has {known}; give the "
                "labels these values, or evaluate without `challenge`"
            )
        return values

    def check_tumors(self, tumors: Mapping[str, Collection[int]]) -> None:
        """Refuses a dataset whose tumors have other values.

        Args:
            tumors: the values of each tumor label by its name, as dataset.json has them.

        Raises:
            InputError: names both.
        """
        if {self.tumor} not in map(set, tumors.values()):
            seen = ", ".join(f"{name} {sorted(values)}" for name, values in tumors.items())
            raise InputError(
                f"`challenge` {self.name}: {self.title} has its {self.labels[self.tumor]} at {self.tumor}, but "
                f"dataset.json has {seen}; choose another one, or state `tumor_label` if dataset.json is wrong"
            )

    def result(self, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """For the JSON of an evaluation.

        Args:
            cases: the scores of every case by its name.
        """
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "labels": {name: value for value, name in self.labels.items()},
            "settings": dict(self.settings),
            "definition": dict(self.definitions),
            "remark": self.remark,
            "overall": self.over_cases(list(cases.values())),
            "cases": dict(cases),
        }


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are there; None without any."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
