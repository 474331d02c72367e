"""Evaluates a folder of predicted label maps against the folder of the true ones."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import SUFFIXES, Scan, read_labels
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.comparison import BANDS_MM, CONNECTIVITY, CaseResult, Lesion, compare
from nnunet_difftumor.evaluation.summary import RESAMPLES, summarize

NSD_TOLERANCE_MM = 2.0


def evaluate(
    ground_truth: str | os.PathLike,
    prediction: str | os.PathLike,
    *,
    tumor_labels: Mapping[str, Collection[int]],
    organ_masks: str | os.PathLike | None = None,
    organ_labels: Collection[int] = (),
    ignore_label: int | None = None,
    predicted_only: bool = False,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    seed: int = 0,
) -> dict:
    """Compares label maps of the same file names, case by case and over all cases.

    A tumor is a connected component (26 neighbours) of the true mask; it is detected if at least one of its voxels is
    predicted. A false positive is a component of the prediction without any voxel of a true tumor, however small.

    Args:
        ground_truth, prediction: folders of .nii.gz or .nii label maps.
        tumor_labels: name -> values in the label maps; every name is evaluated on its own.
        organ_masks: folder of label maps of the same names; predictions outside the organ are dropped before anything
            is counted. The masks must include the organ's tumors.
        organ_labels: values of the organ in `organ_masks` (default: all but 0). Without `organ_masks` they are values
            in the ground truth, and its tumors belong to the organ.
        ignore_label: value in the ground truth of voxels that nobody has annotated. They are left out of both masks
            before anything is counted; surfaces end where they begin.
        predicted_only: evaluate the cases that were predicted, instead of asking for all.
        nsd_tolerance_mm: surfaces that are not farther apart count as the same.
        seed: of the bootstrap.

    Returns:
        A dict for strict JSON: settings, and per tumor name the summary (see `summarize`) and the cases.

    Raises:
        InputError: a folder or counterpart is missing, or a file is broken or lies on another grid.
    """
    if not tumor_labels or not all(tumor_labels.values()):
        raise InputError(f"tumor labels: expected at least one value per name, got {dict(tumor_labels)}")
    for name, values in tumor_labels.items():
        if ignore_label in values:
            raise InputError(f"tumor labels: {name} has the value {ignore_label}, which is the dataset's label ignore")
    if nsd_tolerance_mm <= 0:
        raise InputError(f"NSD tolerance: expected more than 0 mm, got {nsd_tolerance_mm:g}")
    truths, predictions = _label_maps(ground_truth), _label_maps(prediction)
    names = _common_names(truths, predictions, predicted_only=predicted_only)
    organs = _label_maps(organ_masks) if organ_masks is not None else None
    if organs is not None and (missing := [name for name in names if name not in organs]):
        raise InputError(f"{organ_masks}: no organ mask for {_some(missing)}; expected the file names of {prediction}")

    cases: dict[str, dict[str, CaseResult]] = {tumor: {} for tumor in tumor_labels}
    for name in tqdm(names, desc="evaluate", unit="case", disable=None):
        truth = _read_as_grid(truths[name])
        predicted = read_labels(predictions[name], like=truth)
        if organs is not None:
            organ_map = read_labels(organs[name], like=truth)
            organ = np.isin(organ_map, list(organ_labels)) if organ_labels else organ_map > 0
        elif organ_labels:
            everything = {*organ_labels, *(value for values in tumor_labels.values() for value in values)}
            organ = np.isin(truth.hu, list(everything))
        else:
            organ = np.True_
        counted = organ if ignore_label is None else organ & (truth.hu != ignore_label)
        for tumor, values in tumor_labels.items():
            cases[tumor][name] = compare(
                np.isin(truth.hu, list(values)),
                np.isin(predicted, list(values)) & counted,
                spacing_mm=truth.spacing_mm,
                nsd_tolerance_mm=nsd_tolerance_mm,
            )

    return {
        "version": __version__,
        "ground_truth": str(Path(ground_truth).resolve()),
        "prediction": str(Path(prediction).resolve()),
        "settings": {
            "nsd_tolerance_mm": nsd_tolerance_mm,
            "connectivity": CONNECTIVITY,
            "detected": "at least one voxel of the tumor is predicted",
            "size_bands_mm": {
                band: [low, high if np.isfinite(high) else None] for band, (low, high) in BANDS_MM.items()
            },
            "organ_masks": str(Path(organ_masks).resolve()) if organ_masks is not None else None,
            "organ_labels": sorted(organ_labels),
            "ignore_label": ignore_label,
            "bootstrap": {"resamples": RESAMPLES, "seed": seed, "interval": "95 % percentile, over cases"},
        },
        "tumors": {
            tumor: {
                "label_values": sorted(values),
                "summary": summarize(list(cases[tumor].values()), seed=seed),
                "cases": {name: _as_json(case) for name, case in cases[tumor].items()},
            }
            for tumor, values in tumor_labels.items()
        },
    }


def _label_maps(folder: str | os.PathLike) -> dict[str, Path]:
    """Case name -> file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of label maps (.nii.gz or .nii)")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        if suffix is None or path.name.startswith("."):
            continue
        name = path.name.removesuffix(suffix)
        if name in found:
            raise InputError(f"{folder}: {found[name].name} and {path.name} are the same case; keep one of them")
        found[name] = path
    if not found:
        raise InputError(f"{folder}: holds no label map (.nii.gz or .nii)")
    return found


def _common_names(truths: Mapping[str, Path], predictions: Mapping[str, Path], *, predicted_only: bool) -> list[str]:
    without_truth = sorted(predictions.keys() - truths.keys())
    without_prediction = sorted(truths.keys() - predictions.keys())
    if without_truth:
        folder = next(iter(truths.values())).parent
        raise InputError(f"{folder}: no ground truth for {_some(without_truth)}; the file names must be the same")
    if without_prediction and not predicted_only:
        folder = next(iter(predictions.values())).parent
        raise InputError(
            f"{folder}: no prediction for {_some(without_prediction)}; predict them, or evaluate what is there with "
            "`predicted_only`"
        )
    return sorted(predictions)


def _read_as_grid(path: Path) -> Scan:
    """A label map in the place of a scan, so that other label maps can be checked against its grid."""
    labels = read_labels(path)
    image = nib.load(path)
    spacing_mm = tuple(float(size) for size in np.linalg.norm(image.affine[:3, :3], axis=0)[::-1])
    return Scan(labels, spacing_mm, image.affine, image.header, path)


def _as_json(case: CaseResult) -> dict:
    def lesion(item: Lesion) -> dict:
        return {"diameter_mm": round(item.diameter_mm, 3), "band": item.band}

    return {
        "dsc": case.dsc,
        "nsd": case.nsd,
        "tumors": [lesion(tumor) | {"detected": tumor.hit} for tumor in case.tumors],
        "false_positives": [lesion(finding) for finding in case.false_positives],
    }


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
