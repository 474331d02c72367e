"""Probabilities of tumors, as `nnUNetv2_predict --save_probabilities` writes them: CASE.npz beside the label map."""

import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.labels import IGNORE, all_labels

_KEY = "probabilities"
# float32 that went through softmax and a resampling.
_TOLERANCE = 1e-3
# nnU-Net makes both from the same numbers; a postprocessed label map has less than the probabilities say, not more.
_LEAST_AGREEMENT = 0.9


class ProbabilityChannels:
    """Which channels of nnU-Net's probabilities are a tumor's.

    Without regions they are classes by their value, whose probabilities sum up to 1; with regions one channel each, in
    the order of dataset.json.

    Args:
        dataset_json: of the model.

    Raises:
        InputError: the file is no dataset.json of nnU-Net.
    """

    def __init__(self, dataset_json: Path) -> None:
        self._file = dataset_json
        labels: Mapping[str, tuple[int, ...]] = {
            name: values for name, values in all_labels(dataset_json).items() if name != IGNORE
        }
        self._regions = None
        if any(len(values) > 1 for values in labels.values()):
            self._regions = [frozenset(values) for values in labels.values() if set(values) != {0}]
        self.count = len(self._regions) if self._regions else len({v for values in labels.values() for v in values})

    def of(self, values: Collection[int], *, tumor: str) -> list[int]:
        """Channels that sum up to the probability of a tumor.

        Args:
            values: of the tumor in label maps.
            tumor: its name, for messages.

        Raises:
            InputError: if no channel is for just these values.
        """
        if self._regions is None and all(value < self.count for value in values):
            return sorted(values)
        if self._regions is not None and frozenset(values) in self._regions:
            return [self._regions.index(frozenset(values))]
        told = ", ".join(map(str, sorted(values)))
        raise InputError(
            f"`tumor_label`: by {self._file} the probabilities have no channel for {tumor} (values {told}); evaluate a "
            "label that the model was trained on, or leave `probabilities` out"
        )


def load_probability(path: Path, channels: Collection[int], *, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """The probability of a tumor in every voxel.

    Args:
        path: CASE.npz.
        channels: whose sum it is.
        count: of all channels.
        shape: (z, y, x) of the label map.

    Returns:
        float32 (z, y, x), 0 to 1.

    Raises:
        InputError: if the file is missing, damaged, of another shape or holds no probabilities.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; predict with `--save_probabilities`, or leave `probabilities` out")
    expected = (count, *shape)
    try:
        stored, dtype = _header(path)
        if stored != expected or dtype.kind != "f" or dtype.itemsize > 8:
            raise InputError(
                f"{path}: holds {dtype} of shape {stored}, expected floating-point numbers of shape {expected}: a "
                "channel for every class or region, on the grid of the label map"
            )
        with np.load(path, allow_pickle=False) as file:
            values = file[_KEY]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not the probabilities of nnU-Net ({type(error).__name__}: {error}); predict the case again"
        ) from error
    probability = values[sorted(channels)].sum(axis=0, dtype=np.float32)
    low, high = float(probability.min(initial=0)), float(probability.max(initial=0))
    if not (math.isfinite(low + high) and low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise InputError(f"{path}: has values from {low:g} to {high:g}, expected probabilities from 0 to 1")
    return np.clip(probability, 0, 1)


def check_agreement(path: Path, probability: np.ndarray, prediction: np.ndarray) -> None:
    """Refuses probabilities of another prediction than the label map's, or with axes in another order.

    Args:
        path: of the probabilities, for the message.
        probability: of the tumor, (z, y, x).
        prediction: boolean, where the label map has the tumor.

    Raises:
        InputError: with the share of the predicted voxels whose probability is far too low.
    """
    inside = probability[prediction]
    # A class of several may win with less than a half, but not with so little.
    if inside.size and (agreed := float((inside > 0.2).mean())) < _LEAST_AGREEMENT:
        raise InputError(
            f"{path}: only {agreed:.0%} of the predicted tumor has a probability above 0.2; the file is of another "
            "prediction, or its axes are in another order than the label map's"
        )


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array, before memory is taken for it."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{_KEY}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return shape, dtype
