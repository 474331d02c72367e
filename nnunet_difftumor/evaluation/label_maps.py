"""Folders of label maps: one file a case, as nnU-Net predicts them."""

import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_difftumor.ct import IMAGE_SUFFIXES
from nnunet_difftumor.ct.images import FORMATS, stem_of
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.files import check_folder


def label_maps(folder: str | os.PathLike) -> dict[str, Path]:
    """Case name -> file.

    Raises:
        InputError: there is no such folder, it holds no label map, or two of one case.
    """
    folder = Path(folder)
    check_label_folder(folder)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(IMAGE_SUFFIXES) or path.name.startswith("."):
            continue
        name = stem_of(path)
        if name in found:
            raise InputError(f"{folder}: {found[name].name} and {path.name} are the same case; keep one of them")
        found[name] = path
    if not found:
        raise InputError(f"{folder}: holds no label map ({FORMATS})")
    return found


def check_label_folder(folder: str | os.PathLike) -> None:
    """Raises an InputError where no folder is."""
    check_folder(folder, f"expected a folder of label maps ({FORMATS})")


def organ_maps_for(
    names: Sequence[str], organ_masks: str | os.PathLike, prediction: str | os.PathLike
) -> dict[str, Path]:
    """Case name -> organ mask, for the cases that were predicted.

    Raises:
        InputError: one is missing.
    """
    organs = label_maps(organ_masks)
    if missing := [name for name in names if name not in organs]:
        raise InputError(f"{organ_masks}: no organ mask for {some(missing)}; expected the file names of {prediction}")
    return {name: organs[name] for name in names}
