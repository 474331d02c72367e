"""Takes predicted tumors that lie outside their organ out of a folder of label maps (DiffTumor, supplement E.2)."""

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import SUFFIXES, Scan, read_label_grid, read_labels, write_labels
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.evaluation.label_maps import label_maps, organ_maps_for
from nnunet_difftumor.evaluation.labels import find_dataset_json
from nnunet_difftumor.evaluation.measures.matching import CONNECTIVITY
from nnunet_difftumor.evaluation.postprocessing.organ_rule import MIN_OVERLAP, TOLERANCE_MM, judge, region_of
from nnunet_difftumor.evaluation.postprocessing.owners import Owner, check_occurrence, choose_owners
from nnunet_difftumor.files import atomic_path, only_writer, write_json
from nnunet_difftumor.json_checks import is_integer, is_number, read_json

REPORT = "postprocessing.json"


def postprocess(
    prediction: str | os.PathLike,
    output: str | os.PathLike,
    *,
    organ_masks: str | os.PathLike | None = None,
    organ: Sequence[str] = (),
    organ_label: Sequence[int] = (),
    tumor_label: Sequence[int] = (),
    dataset_json: str | os.PathLike | None = None,
    min_overlap: float = MIN_OVERLAP,
    tolerance_mm: float = TOLERANCE_MM,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Removes predicted tumors that do not belong to their organ, component by component.

    A connected component (26 neighbours) of predicted tumor is kept whole if at least `min_overlap` of its voxels lie
    in the organ, whose holes are filled, or within `tolerance_mm` of it; else its voxels become background. All other
    voxels stay as they are. Cases that are done are skipped, so that an interrupted call resumes.

    Args:
        prediction: folder of label maps: .nii.gz, .nii, .mha or .nrrd; those that are no NIfTI become .nii.gz.
        output: folder for label maps of the same names, with nnU-Net's dataset.json and plans.json, if they are with
            the predictions, and postprocessing.json: the rule, and what was kept and removed in each case.
        organ_masks: folder of label maps of the same names that hold the organs; None: the predictions' own organs.
        organ: organs with their tumors, NAME=ORGAN[,ORGAN]:TUMOR[,TUMOR]: values in the organ masks, and values in the
            predictions. Several values of tumors are one mask.
        organ_label: values of the only organ (default with `organ_masks`: all but 0).
        tumor_label: values of its tumors.
        dataset_json: nnU-Net's file, which names organs and tumors where they are not given; None: the one that nnU-Net
            put to the predictions.
        min_overlap: above 0 and up to 1.
        tolerance_mm: 0 or more; filled holes are always in the organ.
        overwrite: make all cases again, also with other settings.
        report: gets a line per case in which there is a tumor, and the sum.

    Returns:
        What postprocessing.json holds.

    Raises:
        InputError: a folder, mask or label is missing, a file is broken or lies on another grid, or the output folder
            is one of the others or holds something else.
    """
    _check_numbers(min_overlap, tolerance_mm)
    prediction, output = Path(prediction), Path(output)
    _check_folders(prediction, output, organ_masks)
    predictions = label_maps(prediction)
    masks = organ_maps_for(list(predictions), organ_masks, prediction) if organ_masks is not None else predictions
    owners = choose_owners(
        prediction,
        has_masks=organ_masks is not None,
        organ=organ,
        organ_label=organ_label,
        tumor_label=tumor_label,
        dataset_json=dataset_json,
        report=report,
    )
    declared = dataset_json is not None or find_dataset_json(prediction).is_file()
    check_occurrence(owners, list(masks.values()), [] if declared else list(predictions.values()))
    settings = _settings(prediction, organ_masks, owners, min_overlap=min_overlap, tolerance_mm=tolerance_mm)
    with only_writer(output):
        written = {
            name: path.name if path.name.endswith(SUFFIXES) else f"{name}.nii.gz" for name, path in predictions.items()
        }
        cases = _cases_before(output, settings, set(written.values()), overwrite=overwrite)
        for name, path in tqdm(predictions.items(), desc="postprocess", unit="case", disable=None):
            mask = None if organ_masks is None else masks[name]
            inputs = _hashes(path, mask)
            if cases.get(name, {}).get("inputs") == inputs and (output / written[name]).is_file():
                continue
            grid = read_label_grid(path)
            organs = grid.hu if mask is None else read_labels(mask, like=grid)
            labels, found = _judged(grid, organs, owners, min_overlap=min_overlap, tolerance_mm=tolerance_mm)
            # The report first: label maps that it does not name are not this command's.
            cases[name] = {"file": written[name], "inputs": inputs, "organs": found}
            write_json(output / REPORT, _content(settings, cases))
            write_labels(output / written[name], labels, grid)
            if any(of_organ["components"] for of_organ in found.values()):
                with tqdm.external_write_mode(file=sys.stderr):
                    report(_line(name, found))
        content = _content(settings, cases)
        _finish(output, prediction, content)
    for line in _summary_lines(content):
        report(line)
    return content


def _settings(
    prediction: Path,
    organ_masks: str | os.PathLike | None,
    owners: Sequence[Owner],
    *,
    min_overlap: float,
    tolerance_mm: float,
) -> dict[str, Any]:
    """What decides the result besides the files' content: an output folder holds the work of one of them."""
    return {
        "prediction": str(prediction.resolve()),
        "organ_masks": str(Path(organ_masks).resolve()) if organ_masks is not None else None,
        "organs": {
            owner.name: {"organ_values": list(owner.organ_values), "tumor_values": list(owner.tumor_values)}
            for owner in owners
        },
        "min_overlap": min_overlap,
        "tolerance_mm": tolerance_mm,
        "connectivity": CONNECTIVITY,
    }


def _finish(output: Path, prediction: Path, content: dict[str, Any]) -> None:
    """What nnU-Net put to the predictions, and the report, which may have been there in part."""
    for name in ("dataset.json", "plans.json"):
        if (prediction / name).is_file():
            with atomic_path(output / name) as temporary:
                shutil.copyfile(prediction / name, temporary)
    write_json(output / REPORT, content)


def _summary_lines(content: dict[str, Any]) -> Iterator[str]:
    """A line for each organ."""
    for name, total in content["summary"].items():
        without = total["cases_without_organ"]
        yield (
            f"{name}: {total['components']} tumor components in {len(content['cases'])} cases, {total['removed']} "
            f"removed in {total['cases_changed']} ({total['removed_ml']:.3g} ml)"
        ) + (f"; cases without the organ: {some(without)}" if without else "")


def _check_numbers(min_overlap: float, tolerance_mm: float) -> None:
    if not 0 < min_overlap <= 1:
        raise InputError(f"`min_overlap`: expected a share above 0 and up to 1, got {min_overlap:g}")
    if not (tolerance_mm >= 0 and math.isfinite(tolerance_mm)):
        raise InputError(f"`tolerance_mm`: expected 0 mm or more, got {tolerance_mm:g}")


def _check_folders(prediction: Path, output: Path, organ_masks: str | os.PathLike | None) -> None:
    for option, folder in (("predictions", prediction), ("organ masks", organ_masks)):
        if folder is not None and os.path.realpath(folder) == os.path.realpath(output):
            raise InputError(
                f"{output}: is the folder of the {option}, which stay as they are; `output` to another one"
            )


def _cases_before(
    output: Path, settings: Mapping[str, Any], names: set[str], *, overwrite: bool
) -> dict[str, dict[str, Any]]:
    """The cases of the report that is in the output folder, which resumes from it.

    Raises:
        InputError: the folder holds label maps of others, other cases, or other settings' results.
    """
    there = {path.name for path in output.iterdir() if path.name.endswith(SUFFIXES)} if output.is_dir() else set()
    there = {name for name in there if not name.startswith(".")}
    cases, before = {}, None
    if (output / REPORT).is_file():
        before = read_json(
            output / REPORT, dict, expected="an object", missing="", fix="remove it, or name another folder"
        )
        cases = before.get("cases")
        if not isinstance(cases, dict) or not all(map(_is_case, cases.values())):
            raise InputError(f"{output / REPORT}: is no report of this command; remove it, or name another folder")
    ours = {case["file"] for case in cases.values()}
    if foreign := sorted(there - ours):
        raise InputError(f"{output}: holds {some(foreign)}, which this command has not made; name another folder")
    if overwrite:
        for name in there:
            (output / name).unlink()
        return {}
    if before is not None and before.get("settings") != settings:
        raise InputError(
            f"{output}: holds results of other folders or settings ({REPORT}); name another folder, or `overwrite`"
        )
    if gone := sorted(there - names):
        raise InputError(
            f"{output}: holds {some(gone)}, which are not predicted any more; name another folder, or `overwrite`"
        )
    return cases


def _is_case(case: Any) -> bool:
    """Whether this is what `postprocess` writes of a case."""
    try:
        found = [(record["organ_voxels"], record["components"]) for record in case["organs"].values()]
        components = [component for _, components in found for component in components]
        return (
            isinstance(case["file"], str)
            and all(is_integer(voxels) for voxels, _ in found)
            and all(is_number(item["volume_ml"]) and isinstance(item["kept"], bool) for item in components)
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _hashes(*paths: Path | None) -> list[str]:
    found = []
    for path in paths:
        if path is not None:
            with open(path, "rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def _judged(
    prediction: Scan, organs: np.ndarray, owners: Sequence[Owner], *, min_overlap: float, tolerance_mm: float
) -> tuple[np.ndarray, dict[str, dict[str, Any]]]:
    """The label map without what does not belong, and by organ what was found."""
    voxel_ml = math.prod(prediction.spacing_mm) / 1000
    labels, found = prediction.hu.copy(), {}
    for owner in owners:
        organ = owner.organ(organs)
        region = region_of(organ, spacing_mm=prediction.spacing_mm, tolerance_mm=tolerance_mm)
        removed, components = judge(owner.tumor(prediction.hu), region, min_overlap=min_overlap)
        labels[removed] = 0
        found[owner.name] = {
            "organ_voxels": int(organ.sum()),
            "components": [
                {
                    "volume_ml": round(component.voxels * voxel_ml, 4),
                    "overlap": round(component.overlap, 4),
                    "kept": component.kept,
                }
                for component in components
            ],
        }
    return labels, found


def _content(settings: Mapping[str, Any], cases: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    summary = {}
    for name in settings["organs"]:
        components = {case: record["organs"][name]["components"] for case, record in cases.items()}
        removed = {case: [item for item in items if not item["kept"]] for case, items in components.items()}
        summary[name] = {
            "components": sum(map(len, components.values())),
            "removed": sum(map(len, removed.values())),
            "removed_ml": round(sum(item["volume_ml"] for items in removed.values() for item in items), 4),
            "cases_changed": sum(bool(items) for items in removed.values()),
            "cases_without_organ": [
                case for case, record in cases.items() if record["organs"][name]["organ_voxels"] == 0
            ],
        }
    return {
        "version": __version__,
        "settings": dict(settings),
        "summary": summary,
        "cases": dict(sorted(cases.items())),
    }


def _line(name: str, found: Mapping[str, dict[str, Any]]) -> str:
    parts = []
    for organ, record in found.items():
        removed = [item["volume_ml"] for item in record["components"] if not item["kept"]]
        if record["components"]:
            parts.append(
                f"{organ}: {len(removed)} of {len(record['components'])} tumor components removed"
                + (f" ({sum(removed):.3g} ml)" if removed else "")
                + ("; the organ is not there" if record["organ_voxels"] == 0 else "")
            )
    return f"{name}: {', '.join(parts)}"
