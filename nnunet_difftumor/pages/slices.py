"""Slices of a scan before and after, with a mask, in one picture that a page's script takes apart."""

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# 8 bits: what soft tissue and its tumors need. Values beyond are shown as these ends.
LOWEST_HU, STEP_HU = -240.0, 2.0
WINDOWS_HU = {"soft tissue": (-175.0, 250.0), "liver": (0.0, 200.0), "narrow": (40.0, 160.0), "all": (-240.0, 270.0)}


@dataclass(frozen=True)
class SliceStack:
    """Axial slices around something.

    Attributes:
        title: what is shown.
        before, after: HU, (slice, row, column), as radiologists see them: right on the left, front at the top.
        mask: boolean, likewise.
        spacing_mm: (slice, row, column).
        numbers: of the slices, as they are counted in the scan.
        first: index of the slice that is shown first.
        names: of before and after.
    """

    title: str
    before: np.ndarray
    after: np.ndarray
    mask: np.ndarray
    spacing_mm: Sequence[float]
    numbers: Sequence[int]
    first: int
    names: tuple[str, str] = ("before", "after")

    def to_html(self) -> str:
        """A figure for `slices.js`: one PNG, in whose channels lie before, after and mask, slice by slice."""
        count, rows, columns = self.mask.shape
        across = math.ceil(math.sqrt(count))
        sheet = np.zeros((math.ceil(count / across) * rows, across * columns, 3), np.uint8)
        for index in range(count):
            down, right = divmod(index, across)
            tile = sheet[down * rows : (down + 1) * rows, right * columns : (right + 1) * columns]
            tile[..., 0], tile[..., 1] = _to_bytes(self.before[index]), _to_bytes(self.after[index])
            tile[..., 2] = 255 * self.mask[index]
        about = {
            "count": count,
            "rows": rows,
            "columns": columns,
            "across": across,
            "numbers": list(map(int, self.numbers)),
            "first": int(self.first),
            "names": self.names,
            "has_mask": bool(self.mask.any()),
            "row_mm": float(self.spacing_mm[1]),
            "column_mm": float(self.spacing_mm[2]),
            "lowest_hu": LOWEST_HU,
            "step_hu": STEP_HU,
            "windows_hu": WINDOWS_HU,
        }
        return (
            f'<figure class="slices" tabindex="0" data-about="{escape(json.dumps(about))}">'
            f'<img hidden alt="" src="data:image/png;base64,{_png(sheet)}">'
            f"<figcaption>{escape(self.title)}</figcaption></figure>"
        )


def _to_bytes(hu: np.ndarray) -> np.ndarray:
    return np.clip(np.rint((hu - LOWEST_HU) / STEP_HU), 0, 255).astype(np.uint8)


def _png(image: np.ndarray) -> str:
    from PIL import Image  # comes with matplotlib

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
