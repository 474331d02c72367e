"""The page of one scan: its tumors in a table and in slices to scroll through, and how to make them again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.pages import Page
from nnunet_difftumor.synthesis.scans.planes import views
from nnunet_difftumor.synthesis.scans.preview import ShownTumor
from nnunet_difftumor.synthesis.scans.stacks import around, axial_stack

REPORT = "report.html"
# Of more tumors the table says all.
_MOST_STACKS = 6


def write_report(
    path: Path,
    before: np.ndarray,
    after: np.ndarray,
    *,
    mask: np.ndarray,
    tumors: Sequence[ShownTumor],
    spacing_mm: Sequence[float],
    directions: np.ndarray,
    manifest: Mapping[str, Any],
) -> None:
    """Writes the page of a scan with synthetic tumors.

    Args:
        path: HTML file, written atomically.
        before, after: HU (z, y, x).
        mask: boolean (z, y, x) of all tumors.
        tumors: those of the manifest.
        spacing_mm: voxel size, (z, y, x).
        directions: (3, 3), columns are the array axes z, y, x in RAS space.
        manifest: of the scan, complete.
    """
    names = {key: entry["file"] for key, entry in manifest["inputs"].items()}
    count, organ = len(manifest["tumors"]), manifest["organ"]
    page = Page(
        f"{count} synthetic {'tumor' if count == 1 else 'tumors'} in {names['ct']}",
        f"Drawn by nnunet-difftumor {manifest['versions']['nnunet_difftumor']}. No patient has these tumors: the "
        "images are marked SYNTHETIC in their header.",
    )
    across = views(directions)[0].fixed
    page.heading("Tumors")
    page.text(
        f"{organ['name'].capitalize()}: {organ['volume_ml']:.0f} ml, {organ['parenchyma_hu']:.0f} HU. Contrast is the "
        "mean inside the mask minus that of the tissue around, slices are counted from 1 as in the file."
    )
    page.table(
        ("tumor", "size", "diameter, mm", "contrast, HU", "contrast / noise", "slice", ""),
        [
            (
                number,
                tumor["spec"]["size_class"],
                round(tumor["equivalent_diameter_mm"], 1),
                _rounded(tumor["measured_contrast_hu"], 0),
                _rounded(tumor["contrast_to_noise"], 2),
                _widest(shown, across),
                "hard to see" if tumor["faint"] else "",
            )
            for number, (tumor, shown) in enumerate(zip(manifest["tumors"], tumors, strict=True), 1)
        ],
    )
    for missing in manifest["not_placed"]:
        page.warning(f"Not placed, {missing['size_class']}: {missing['reason']}")
    for note in manifest["notes"]:
        page.warning(note)

    page.heading("Slices")
    page.text("Arrow keys and Page Up or Down go through the slices of the figure that was clicked.")
    where: Any = {"spacing_mm": spacing_mm, "directions": directions}
    for tumor in tumors[:_MOST_STACKS]:
        region = around(tumor.box, shape=mask.shape, **where)
        page.slices(axial_stack(tumor.text, before, after, region=region, mask=mask, **where))
    if count > _MOST_STACKS:
        page.text(f"The other {count - _MOST_STACKS} are in the sheets preview_2.png and so on.")

    page.heading("The same voxels again")
    page.commands(
        [f"difftumor synthesize {names['ct']} --organ-mask {names['organ_mask']} --from-spec manifest.json -o again/"]
    )
    page.heading("Settings")
    page.facts({name: value for name, value in manifest["settings"].items() if value is not None})
    page.folded(
        "Renderer, versions, hashes",
        {
            "renderer": manifest["renderer"],
            **manifest["versions"],
            **{f"SHA-256 of {entry['file']}": entry["sha256"] for entry in manifest["inputs"].values()},
            **{f"SHA-256 of {name}": digest for name, digest in manifest["files"].items()},
        },
    )
    page.write(path)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits) if digits else round(value)


def _widest(tumor: ShownTumor, axis: int) -> int:
    """The slice with most of a tumor, counted from 1."""
    others = tuple(other for other in range(3) if other != axis)
    return int(tumor.box[axis].start + tumor.mask.sum(others).argmax()) + 1
