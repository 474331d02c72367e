"""Which ground truth belongs to the validation of a label-free training: that of the scans with synthetic tumors."""

import os
from collections.abc import Callable
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.nnunet_folders import PREPROCESSED

# As in `prepared.label_free_validation`, which nnU-Net is needed for.
SUMMARY_MARK = "difftumor_validation"
_TRUTHS = "gt_segmentations"


def find_truth(
    ground_truth: str | os.PathLike, prediction: str | os.PathLike, *, report: Callable[[str], None]
) -> Path:
    """The folder to compare with: of the validation of a label-free training, not the labels of the scans before they
    got tumors.

    Every tumor that was found would count as a false positive.

    Args:
        ground_truth, prediction: folders that were given.
        report: gets a line if another folder is taken.

    Raises:
        InputError: if the right labels are not found.
    """
    truth = Path(os.path.abspath(ground_truth))
    if truth.name not in (_TRUTHS, "labelsTr") or truth.parent.name == SUMMARY_MARK or not _is_label_free(prediction):
        return Path(ground_truth)
    right = _right_truth(truth, Path(os.path.abspath(prediction)))
    why = (
        f"{prediction} is the validation of a label-free training, which predicts scans with synthetic tumors; "
        f"{ground_truth} has the labels of the scans without them"
    )
    if right is None:
        raise InputError(
            f"{truth}: {why}. Give {SUMMARY_MARK}/{_TRUTHS} of the preprocessed dataset, or set nnUNet_preprocessed"
        )
    report(f"compared with {right}: {why}")
    return right


def _is_label_free(prediction: str | os.PathLike) -> bool:
    try:
        content = load_json(Path(prediction) / "summary.json")
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and SUMMARY_MARK in content


def _right_truth(truth: Path, prediction: Path) -> Path | None:
    # RESULTS/DatasetXXX_NAME/TRAINER__PLANS__CONFIGURATION/fold_X/validation
    dataset = next((parent.name for parent in prediction.parents if parent.name.startswith("Dataset")), "DATASET")
    folders = [truth.parent] if truth.name == _TRUTHS else []
    if os.environ.get(PREPROCESSED):
        folders.append(Path(os.environ[PREPROCESSED]) / dataset)
    for folder in folders:
        if (folder / SUMMARY_MARK / _TRUTHS).is_dir():
            return folder / SUMMARY_MARK / _TRUTHS
    return None
