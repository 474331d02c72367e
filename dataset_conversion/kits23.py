"""KiTS23: case_NNNNN/imaging.nii.gz and segmentation.nii.gz, with 1 kidney, 2 tumor, 3 cyst.

Trained as regions, as nnU-Net's own converter has them: kidney (1, 2, 3), masses (2, 3), tumor (2).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_difftumor.dataset_conversion.kits import convert_kits

LABELS = {"background": 0, "kidney": (1, 2, 3), "masses": (2, 3), "tumor": 2}
REGIONS_CLASS_ORDER = (1, 3, 2)


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
    """Makes a raw dataset from KiTS23; see `convert_kits`."""
    return convert_kits(
        input_folder,
        dataset_id,
        name="KiTS2023" if name is None else name,
        labels=LABELS,
        overwrite=overwrite,
        dry_run=dry_run,
        spacing_mm=spacing_mm,
        about={
            "description": "KiTS23, the 2023 Kidney Tumor Segmentation Challenge",
            "reference": "https://kits-challenge.org/kits23",
            "license": "CC BY-NC-SA; see the challenge's site",
            "regions_class_order": REGIONS_CLASS_ORDER,
        },
    )
