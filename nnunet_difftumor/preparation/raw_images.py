"""Looks at raw images before nnU-Net preprocesses them: whether the files are whole and the values are HU."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_difftumor.ct.hounsfield import check_hu, check_organs_hu
from nnunet_difftumor.ct.whole_files import check_is_whole


def check_raw_cases(cases: Iterable[Mapping[str, Any]], dataset_json: Mapping[str, Any]) -> None:
    """Checks the files of every case, as nnU-Net's reader sees them.

    Args:
        cases: nnU-Net's list: {"images": [...], "label": ...} of each.
        dataset_json: nnU-Net's.

    Raises:
        InputError: naming the first file that is damaged or not CT in HU.
    """
    for case in tqdm(list(cases), desc="HU", unit="case", disable=None):
        check_raw_case(case["images"][0], case["label"], dataset_json)


def check_raw_case(image: str, label: str, dataset_json: Mapping[str, Any]) -> None:
    """Checks the two files of one case; see `check_raw_cases`."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    for path in (image, label):
        check_is_whole(Path(path))
    reader = determine_reader_writer_from_dataset_json(dict(dataset_json), image, verbose=False)()
    check_case_hu(reader.read_images((image,))[0][0], reader.read_seg(label)[0][0], dataset_json, where=image)


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
