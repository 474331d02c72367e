"""One function for all converters, by their names."""

import importlib
from pathlib import Path
from typing import Any

from nnunet_difftumor.ct.geometry import check_stated_spacing
from nnunet_difftumor.dataset_conversion import CONVERTERS
from nnunet_difftumor.errors import InputError


def convert(converter: str, **arguments: Any) -> Path:
    """Makes an nnU-Net raw dataset.

    Args:
        converter: a name in `CONVERTERS`: folder, lits, kits19, kits23, msd, healthy or phantom.
        arguments: of the converter's own `convert`; `dataset_id` in all of them, `input_folder` in all but phantom.

    Returns:
        The dataset's folder.

    Raises:
        InputError: for an unknown converter or a voxel size that no CT has, and as the converter.
    """
    if converter not in CONVERTERS:
        raise InputError(f"`converter` is {converter!r}, expected one of {', '.join(CONVERTERS)}")
    check_stated_spacing(arguments.get("spacing_mm"))
    return importlib.import_module(f"nnunet_difftumor.dataset_conversion.{converter}").convert(**arguments)
