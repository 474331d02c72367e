"""KiTS19: case_NNNNN/imaging.nii.gz and segmentation.nii.gz, with 1 kidney, 2 tumor.

Trained as regions, in the manner of nnU-Net's converter of KiTS23: kidney (1, 2), tumor (2).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_difftumor.dataset_conversion.kits import convert_kits

LABELS = {"background": 0, "kidney": (1, 2), "tumor": 2}
REGIONS_CLASS_ORDER = (1, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Has no arguments of its own."""


def convert(
    input_folder: str | Path,
    dataset_id: int,
    *,
    name: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    spacing_mm: Sequence[float] | None = None,
) -> Path:
    """Makes a raw dataset from KiTS19; see `convert_kits`."""
    return convert_kits(
        input_folder,
        dataset_id,
        name="KiTS2019" if name is None else name,
        labels=LABELS,
        overwrite=overwrite,
        dry_run=dry_run,
        spacing_mm=spacing_mm,
        about={
            "description": "KiTS19, the 2019 Kidney Tumor Segmentation Challenge",
            "reference": "https://kits19.grand-challenge.org",
            "license": "CC BY-NC-SA; see the challenge's site",
            "regions_class_order": REGIONS_CLASS_ORDER,
        },
    )
