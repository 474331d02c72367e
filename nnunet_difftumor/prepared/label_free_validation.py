"""The validation cases of label-free training: healthy cases with fixed synthetic tumors, made once by `prepare`."""

from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_difftumor.files import write_json

VALIDATION_NOTE = (
    "Label-free: validation runs on held-out healthy cases with synthetic tumors (made once, specs in "
    "difftumor_validation/specs). It says how well synthetic tumors are segmented, not real ones."
)


def validation_folder(dataset_folder: str | Path) -> Path:
    """Laid out as a preprocessed dataset of its own: DATA_IDENTIFIER/, gt_segmentations/, and specs/."""
    return Path(dataset_folder) / "difftumor_validation"


def forget_validation_case(dataset_folder: str | Path, case: str, *, file_ending: str) -> None:
    """Removes a validation case, its specs first: without them it is made again, if it is to be one."""
    folder = validation_folder(dataset_folder)
    (folder / "specs" / f"{case}.json").unlink(missing_ok=True)
    names = (f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl", f"{case}{file_ending}")
    for part in folder.iterdir() if folder.is_dir() else ():
        for name in names:
            (part / name).unlink(missing_ok=True)


def mark_summary(path: str | Path) -> None:
    """Writes into nnU-Net's summary.json what was validated on; nnU-Net itself reads other keys of it."""
    summary = load_json(str(path))
    # nnU-Net writes NaN where neither the truth nor the prediction has a label; JSON has no such number.
    write_json(path, {"difftumor_validation": VALIDATION_NOTE, **_without_nan(summary)})


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value
