"""The files of each case: the true and the predicted label map, the organ's, and probabilities."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.evaluation.label_maps import label_maps, organ_maps_for

MISSING = ("refuse", "skip", "empty")
# What nnU-Net writes beside predictions, and nowhere else.
_OF_PREDICTIONS = ("predict_from_raw_data_args.json", "plans.json")


@dataclass(frozen=True)
class CaseFiles:
    """Of one case.

    Attributes:
        truth: the true label map.
        prediction: the predicted one; None: it is missing, and counts as one without tumors.
        organ: label map of the organ, if any.
        probabilities: CASE.npz, if probabilities are asked for.
    """

    truth: Path
    prediction: Path | None
    organ: Path | None = None
    probabilities: Path | None = None


def find_case_files(
    ground_truth: str | os.PathLike,
    prediction: str | os.PathLike,
    *,
    organ_masks: str | os.PathLike | None,
    missing: str,
    probabilities: bool,
) -> dict[str, CaseFiles]:
    """The files of every case by its name, sorted.

    Args:
        ground_truth, prediction: folders of label maps.
        organ_masks: folder of the organs' label maps, if any.
        missing: what becomes of cases without a prediction, one of `MISSING`: an error, left out, or counted as
            predictions without tumors.
        probabilities: whether CASE.npz is read.

    Raises:
        InputError: a folder or counterpart is missing, or the folders are swapped.
    """
    if missing not in MISSING:
        raise InputError(f"`missing` is {missing!r}, expected one of {', '.join(MISSING)}")
    _check_order(Path(ground_truth), Path(prediction))
    truths, predictions = label_maps(ground_truth), label_maps(prediction)
    _check_counterparts(truths, predictions, Path(ground_truth), Path(prediction), missing)
    names = sorted(truths if missing == "empty" else predictions)
    organs = organ_maps_for(names, organ_masks, prediction) if organ_masks is not None else {}
    found = {}
    for name in names:
        predicted = predictions.get(name)
        npz = predicted.parent / f"{name}.npz" if probabilities and predicted is not None else None
        found[name] = CaseFiles(truths[name], predicted, organs.get(name), npz)
    return found


def _check_order(truth: Path, prediction: Path) -> None:
    of_predictions = [any((folder / name).is_file() for name in _OF_PREDICTIONS) for folder in (truth, prediction)]
    if of_predictions == [True, False]:
        raise InputError(
            f"{truth}: holds predictions of nnU-Net, and {prediction} does not; give the folder of the ground truth "
            "first, then that of the predictions"
        )


def _check_counterparts(
    truths: Mapping[str, Path], predictions: Mapping[str, Path], truth: Path, prediction: Path, missing: str
) -> None:
    if without_truth := sorted(predictions.keys() - truths.keys()):
        raise InputError(f"{truth}: no ground truth for {some(without_truth)}; the file names must be the same")
    without_prediction = sorted(truths.keys() - predictions.keys())
    if without_prediction and missing == "refuse":
        raise InputError(
            f"{prediction}: no prediction for {some(without_prediction)}; predict them, or say what becomes of them "
            "with `missing`: skip leaves them out, empty counts them as predictions without tumors"
        )
