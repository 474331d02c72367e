"""DICOM series as scanners write them, for tests."""

import locale
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import SimpleITK

SPACING_MM = (4.0, 3.0, 3.0)
ORIGIN_MM = (-90.0, -70.0, -50.0)
# Direction of rows and of columns in DICOM's axes: left, posterior, superior.
AXIAL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_UID = "1.2.826.0.1.3680043.2.1125.1"


def save_dicom(
    folder: Path,
    hu: np.ndarray,
    *,
    axes: np.ndarray = AXIAL,
    spacing_mm: Sequence[float] = SPACING_MM,
    modality: str = "CT",
    number: int = 1,
    skip: Collection[int] = (),
    tilt_mm: float = 0.0,
    scaling: Sequence[tuple[float, float]] = ((1.0, -1024.0),),
    from_the_top: bool = False,
    tags: dict[str, str] | None = None,
) -> list[Path]:
    """One file per slice, whose names are in no order; returns them in the order of the array.

    Args:
        folder: that gets them.
        hu: (z, y, x), whole numbers in stored values of the scaling.
        axes: 2 x 3.
        spacing_mm: (z, y, x).
        modality, number: of the series.
        skip: slices that are not written.
        tilt_mm: by which every slice lies behind the one below.
        scaling: slope and intercept of the slices, again and again.
        from_the_top: the scanner began there.
        tags: others, of all files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # GDCM leaves the C locale behind when it writes, in which other tests could read no UTF-8.
    before = locale.setlocale(locale.LC_ALL)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    written = []
    for z in range(len(hu)):
        if z in skip:
            continue
        slope, intercept = scaling[z % len(scaling)]
        # GDCM stores it with the scaling that the tags say.
        plane = SimpleITK.GetImageFromArray(hu[z].astype(np.int16 if slope == 1 else np.float64))
        plane.SetSpacing(spacing_mm[:0:-1])
        position = np.array(ORIGIN_MM) + z * (spacing_mm[0] * np.cross(*axes) + (0, tilt_mm, 0))
        index = len(hu) - z if from_the_top else z + 1
        values = {
            "0008|0060": modality,
            "0008|0020": "20200101",
            "0008|0030": "120000",
            "0020|000d": _UID,
            "0020|000e": f"{_UID}.{number}",
            "0008|0018": f"{_UID}.{number}.{z + 1}",
            "0020|0011": str(number),
            "0020|0013": str(index),
            "0020|0032": "\\".join(f"{value:.10g}" for value in position),
            "0020|0037": "\\".join(f"{value:.10g}" for value in axes.ravel()),
            "0028|0100": "16",
            "0028|0101": "16",
            "0028|0102": "15",
            "0028|0103": "1",
            "0028|1052": f"{intercept:g}",
            "0028|1053": f"{slope:g}",
        }
        for key, value in (values | (tags or {})).items():
            plane.SetMetaData(key, value)
        written.append(folder / f"{(7 * z) % len(hu):03d}_{number}.dcm")
        writer.SetFileName(str(written[-1]))
        writer.Execute(plane)
    locale.setlocale(locale.LC_ALL, before)
    return written
