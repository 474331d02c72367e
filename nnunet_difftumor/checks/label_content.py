"""What a label map holds: organs that are empty or specks, tumors far from their organ, a body turned round."""

from collections.abc import Collection, Mapping

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label, minimum

from nnunet_difftumor.checks.coarse import GRID_MM
from nnunet_difftumor.checks.finding import ERROR, WARNING, Finding

_LEAST_ML = 1.0
# Of the two largest parts together; a kidney has two.
_LEAST_SHARE = 0.6
_FAR_MM = 15.0
_FINE_MM = 2.0
# On which side of the body an organ is, by its name; +1 is the patient's right.
_SIDES = {"liver": 1, "spleen": -1}


def label_findings(
    case: str,
    labels: np.ndarray,
    spacing_mm: tuple[float, ...],
    *,
    counts: Mapping[int, int],
    organs: Mapping[str, Collection[int]],
    tumors: Mapping[str, Collection[int]],
) -> list[Finding]:
    """Findings about a case's label map.

    Args:
        case: name.
        labels: (z, y, x).
        spacing_mm: voxel size (z, y, x).
        counts: voxels by label value.
        organs: label values by organ.
        tumors: values of the organ's lesions, by organ.
    """
    steps = [max(1, int(_FINE_MM / step)) for step in spacing_mm]
    fine = labels[tuple(slice(None, None, step) for step in steps)]
    step_mm = [n * step for n, step in zip(steps, spacing_mm, strict=True)]
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    look = "look at the case in a viewer, and correct or remove its labels"
    if not any(counts.get(value, 0) for values in organs.values() for value in values):
        expected = ", ".join(f"{name} {sorted(values)}" for name, values in organs.items())
        return [Finding("empty-organ", case, ERROR, f"the label map holds no organ (expected {expected})", look)]
    findings = []
    for name, values in organs.items():
        volume_ml = sum(counts.get(value, 0) for value in values) * voxel_ml
        if not volume_ml:
            continue
        mask = np.isin(fine, list(values))
        if volume_ml < _LEAST_ML:
            seen = f"{name}: {volume_ml:.2g} ml are labelled, which is a speck and no organ"
            findings.append(Finding("specks", case, ERROR, seen, look))
            continue
        if (share := _share_of_largest(mask)) < _LEAST_SHARE:
            seen = f"{name}: its labels lie in many pieces, the two largest hold {share:.0%} of them"
            findings.append(Finding("specks", case, ERROR, seen, look))
        if lesions := [value for value in tumors.get(name, ()) if counts.get(value, 0)]:
            # Every voxel of a lesion counts: the smallest lie between the places that are looked at.
            places = np.argwhere(np.isin(labels, lesions)) // steps
            findings += _far_tumors(case, name, mask, np.minimum(places, np.array(mask.shape) - 1), step_mm, look)
    return findings


def wrong_side(case: str, organ: str, mask: np.ndarray, hu: np.ndarray) -> list[Finding]:
    """A liver on the left, or a spleen on the right, where the whole body is to be seen.

    Args:
        case, organ: names.
        mask: of the organ, on the coarse grid.
        hu: as `coarse_hu` gives it.
    """
    side = next((side for word, side in _SIDES.items() if word in organ.lower()), 0)
    body = hu > -200
    # A body that is cut off at the sides does not say where its middle is.
    if not side or not mask.any() or not body.any() or max(body[:, :, 0].mean(), body[:, :, -1].mean()) > 0.1:
        return []
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) / 2
    from_middle_mm = float((np.argwhere(mask)[:, 2].mean() - middle) * GRID_MM)
    if side * from_middle_mm > -10:
        return []
    where = "left" if side > 0 else "right"
    seen = f"{organ} lies {abs(from_middle_mm):.0f} mm {where} of the body's middle, by the file's own geometry"
    do = "if the patient is not so: the image is mirrored, or its labels are; correct the header or the file"
    return [Finding("mirrored", case, WARNING, seen, do)]


def lesions_in_healthy_case(case: str, labels: Collection[int], lesions: Collection[int]) -> list[Finding]:
    """A case of a pool of healthy scans that has lesions.

    Args:
        case: name.
        labels: values that its label map holds.
        lesions: values of tumors and other lesions.
    """
    found = sorted(set(labels) & set(lesions))
    if not found:
        return []
    seen = f"is in a pool of healthy scans, but has lesions (label {', '.join(map(str, found))})"
    do = "`difftumor prepare` leaves it out; put it among the tumor cases, or fix its label map"
    return [Finding("lesion-in-healthy-case", case, WARNING, seen, do)]


def _share_of_largest(mask: np.ndarray) -> float:
    pieces, count = label(mask)
    if count <= 2:
        return 1.0
    sizes = np.sort(np.bincount(pieces.ravel())[1:])
    return float(sizes[-2:].sum() / sizes.sum())


def _far_tumors(
    case: str, organ: str, mask: np.ndarray, places: np.ndarray, step_mm: list[float], look: str
) -> list[Finding]:
    """Lesions, given by the voxels (n, 3) that they have, that lie apart from the organ."""
    if not mask.any():
        return []
    lesions = np.zeros(mask.shape, bool)
    lesions[tuple(places.T)] = True
    pieces, count = label(lesions)
    margin = [int(_FAR_MM / step) + 1 for step in step_mm]
    far = 0
    for number, box in enumerate(find_objects(pieces), 1):
        around = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(box, margin, strict=True))
        near = mask[around]
        far += not near.any() or _least_mm(near, pieces[around] == number, step_mm) > _FAR_MM
    if not far:
        return []
    away_mm = distance_transform_edt(~mask, sampling=step_mm)
    furthest_mm = max(minimum(away_mm, pieces, range(1, count + 1)))
    seen = f"{far} tumors lie apart from the {organ}, up to {furthest_mm:.0f} mm away"
    return [Finding("far-tumor", case, ERROR, seen, look)]


def _least_mm(mask: np.ndarray, piece: np.ndarray, step_mm: list[float]) -> float:
    """The distance between two masks."""
    return float(distance_transform_edt(~mask, sampling=step_mm)[piece].min())
