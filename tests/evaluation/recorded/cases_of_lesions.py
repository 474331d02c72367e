"""Masks and probabilities drawn from a seed, without our code: other libraries measure them in other environments.

Lesions overlap in every way: found in part, twice, two by one finding, touching at a corner, not at all.
"""

import numpy as np

SHAPE = (20, 28, 28)
CASES = 60


def cases_of_lesions() -> list[tuple[np.ndarray, np.ndarray]]:
    """(truth, confidence) of each case: boolean, and float64 which is alike within a candidate, 0 outside."""
    return [_case(np.random.default_rng(number)) for number in range(CASES)]


def _case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth, found = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    boxes = [_box(rng) for _ in range(rng.integers(0, 5))]
    for low, high in boxes:
        truth[_inside(low, high)] = True
        for _ in range(rng.choice([0, 1, 2], p=[0.25, 0.6, 0.15])):
            shift = int(rng.choice([0, 1, 3]))
            found[_inside(low + rng.integers(-shift, shift + 1, 3), high + rng.integers(-shift, shift + 1, 3))] = True
    for _ in range(rng.integers(0, 3)):
        found[_inside(*_box(rng))] = True
    return truth, _confidences(found, rng)


def _box(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    low = rng.integers(0, np.array(SHAPE) - 4)
    return low, low + rng.integers(2, 9, 3)


def _inside(low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(max(0, int(a)), max(0, int(b))) for a, b in zip(low, high, strict=True))


def _confidences(found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One for each component (26 neighbours), in steps, so that some are equal."""
    from scipy.ndimage import label

    labels, count = label(found, np.ones((3, 3, 3)))
    values = np.append(0.0, rng.integers(2, 10, count) / 10)
    return values[labels]
