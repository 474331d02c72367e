"""Raw datasets of phantoms for benchmarks, made on all cores and read without SimpleITK.

`difftumor convert phantom` makes the same voxels, one case after the other, and leaves the reader to nnU-Net, which
takes SimpleITK. Machines that are lent for minutes have many cores, and not always that library.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct import scan_from_array
from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case
from nnunet_difftumor.dataset_conversion.raw_dataset import RawCase, SourceCase, write_raw_dataset

READER = "NibabelIO"


def write_phantoms(dataset_id: int, *, cases: int, spacing_mm: Sequence[float]) -> Path:
    """Writes `DatasetXXX_Phantom` into nnUNet_raw: healthy cases, and as many with one to three liver lesions.

    Args:
        dataset_id: 1 to 999.
        cases: of each kind.
        spacing_mm: voxel size (z, y, x).

    Returns:
        The dataset's folder.
    """
    wanted = {}
    for number in range(cases):
        wanted[f"phantom_{number:03d}"] = {"seed": (0, 0, number), "lesions": 0}
        wanted[f"phantom_tumor_{number:03d}"] = {"seed": (0, 1, number), "lesions": 1 + number % 3}
    processes = min(os.cpu_count() or 1, len(wanted))
    # Forking would copy the threads' locks of whatever has been imported.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        sources = {}
        for name, arguments in wanted.items():
            made = pool.submit(phantom_case, **arguments, spacing_mm=tuple(spacing_mm))
            sources[name] = SourceCase(partial(_raw_case, made, spacing_mm, source=f"phantom_case({arguments})"))
        return write_raw_dataset(
            sources,
            dataset_id,
            name="Phantom",
            labels=LABELS,
            settings={"spacing_mm": list(spacing_mm)},
            about={"overwrite_image_reader_writer": READER},
        )


def _raw_case(made: Future, spacing_mm: Sequence[float], *, source: str) -> RawCase:
    hu, labels = made.result()
    z, y, x = spacing_mm
    # Arrays run to the head, the back and the left, positions in space to the right, the front and the head.
    return RawCase(scan_from_array(hu, affine=np.diag([-x, -y, z, 1.0])), labels, source)
