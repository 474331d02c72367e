"""Looks at raw images before nnU-Net preprocesses them: whether the values are HU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.ct.hounsfield import check_hu, check_organs_hu


def check_case_hu(hu: np.ndarray, labels: np.ndarray, dataset_json: Mapping[str, Any], *, where: str) -> None:
    """Refuses what is not CT in HU, by the whole scan and by the organs of the dataset's labels.

    Args:
        hu, labels: (z, y, x), not preprocessed.
        dataset_json: nnU-Net's.
        where: the image's file, for messages.

    Raises:
        InputError: saying what is seen.
    """
    organs = {
        name: value if isinstance(value, list | tuple) else (value,)
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }
    check_hu(hu, Path(where))
    check_organs_hu(hu, labels, organs, where=where)
