"""How a preprocessed array lies in the patient: from the reader's direction and nnU-Net's transposition."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.config import MIRROR_AXES
from nnunet_difftumor.synthesis.volume import nearest_axes


def directions(properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> np.ndarray:
    """Float (3, 3): its columns are the directions of a preprocessed array's axes in RAS space.

    Args:
        properties: of a preprocessed case, as nnU-Net stores them.
        transpose_forward: of the plans.

    Raises:
        InputError: if the properties hold no direction (a reader without geometry).
    """
    if "sitk_stuff" in properties:
        # SimpleITK's patient axes are left, posterior, superior.
        direction = np.asarray(properties["sitk_stuff"]["direction"], float).reshape(3, 3) * [[-1], [-1], [1]]
    elif "nibabel_stuff" in properties:
        stored = properties["nibabel_stuff"]
        direction = np.asarray(stored.get("reoriented_affine", stored["original_affine"]), float)[:3, :3]
        direction = direction / np.linalg.norm(direction, axis=0)
    else:
        raise InputError(
            "the images' reader gives no directions, so left and right cannot be told apart; use NIfTI files, or, to "
            "train all the same, set mirror_axes to [] in difftumor.json"
        )
    # Columns x, y, z of the file; arrays are z, y, x, and then transposed.
    return direction[:, ::-1][:, list(transpose_forward)]


def axis_codes(properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> str:
    """Where the axes of a preprocessed array lead to, for example "SPL": head, back, left.

    Arguments and errors are those of `directions`.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions(properties, transpose_forward)
    return "".join(aff2axcodes(affine))


def patient_axes(properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> tuple[int, int, int]:
    """For left-right, front-back and head-foot the array axis (0, 1, 2) that is nearest to it.

    Arguments and errors are those of `directions`.
    """
    return nearest_axes(directions(properties, transpose_forward))


def array_axes(
    names: Sequence[str], cases: Iterable[tuple[str, Mapping[str, Any]]], transpose_forward: Sequence[int]
) -> tuple[int, ...]:
    """Array axes of the named mirror axes, sorted.

    Args:
        names: some of `MIRROR_AXES`.
        cases: (name, properties) of the training cases.
        transpose_forward: of the plans.

    Raises:
        InputError: if the cases are not oriented alike.
    """
    if not names:
        return ()
    first: tuple[str, tuple[int, int, int]] | None = None
    for name, properties in cases:
        axes = patient_axes(properties, transpose_forward)
        first = first or (name, axes)
        if axes != first[1]:
            raise InputError(
                f"mirror_axes: cases {first[0]} and {name} have different orientations, so no array axis is {names} in "
                "all of them; reorient the images alike (for example all RAS) or set mirror_axes to []"
            )
    return tuple(sorted(first[1][MIRROR_AXES.index(name)] for name in names))
