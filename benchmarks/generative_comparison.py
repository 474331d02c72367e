"""Real, hand-crafted and diffusion tumors of the liver below 20 mm, side by side: figures and a picture.

Real ones are the metastases of liver_tumors. The others are drawn by `difftumor synthesize` into liver_healthy, each
seed once by hand-crafting and once with the weights that `generative_demo.py` trained: same place and shape. Only what
lies in the written files is measured, with the definitions of `realism.py`, and

contrast: mean of the tumor, 2 mm from its border, minus that of the liver 3 to 10 mm outside, without vessels.
structure: standard deviation inside of what a Gaussian of 2 mm leaves; the same mask on the scan before tells what a
    constant with the scan's noise would have.

Exits 1 unless the median contrast of the diffusion tumors is at least 5 HU, and their structure above that of a
constant. Reads the folder that DIFFTUMOR_TEST_DATA names. Pictures stay outside of the repository: the scans' licences
do not allow more.
"""

import argparse
import json
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import edt
import numpy as np
from generative_demo import copy_scan
from matplotlib.figure import Figure
from realism import LABEL, noise_ratios
from scipy.ndimage import gaussian_filter, label

from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.demonstration.commands import Commands, nnunet_variables
from nnunet_difftumor.files import write_json
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics

EARLY_MM = 20.0
MIN_CONTRAST_HU = 5.0
MARGIN_MM = 16.0
WINDOW_HU = (-20, 220)
BASE, REAL = "liver_healthy", "liver_tumors"
# What is drawn: size and seed.
DRAWN = [("small", seed) for seed in range(1, 6)] + [("tiny", seed) for seed in range(6, 9)]
MEASURES = ("diameter_mm", "contrast_hu", "structure_hu", "structure_of_constant_hu", "sd_ratio", "power_ratio")


class Tumor:
    """One tumor with its surroundings: hu float32, mask boolean and before (hu without it, or None), all (z, y, x)."""

    def __init__(self, hu, mask, *, spacing_mm, statistics: OrganStatistics, liver, before=None):
        margin = np.ceil(MARGIN_MM / np.asarray(spacing_mm)).astype(int)
        found = np.nonzero(mask)
        box = tuple(
            slice(max(axis.min() - more, 0), axis.max() + more + 1) for axis, more in zip(found, margin, strict=True)
        )
        self.hu, self.mask, self.liver = hu[box], mask[box], liver[box] & ~mask[box]
        self.before = None if before is None else before[box]
        self.spacing_mm, self.statistics = [float(size) for size in spacing_mm], statistics

    @cached_property
    def figures(self) -> dict[str, float | None]:
        """MEASURES; None where too few voxels are left to measure."""
        inner = edt.edt(self.mask, anisotropy=self.spacing_mm) > 2
        even = self.liver & ~self.statistics.vessels(self.hu, self.liver, self.spacing_mm)
        outside = edt.edt(~self.mask, anisotropy=self.spacing_mm)
        ring = even & (outside > 3) & (outside <= 10)
        volume_mm3 = self.mask.sum() * np.prod(self.spacing_mm)
        found: dict[str, float | None] = dict.fromkeys(MEASURES)
        found["diameter_mm"] = float((6 * volume_mm3 / np.pi) ** (1 / 3))
        if inner.sum() < 20 or ring.sum() < 200:
            return found
        found["contrast_hu"] = float(self.hu[inner].mean() - self.hu[ring].mean())
        found["structure_hu"] = self._structure_hu(self.hu, inner)
        if self.before is not None:
            found["structure_of_constant_hu"] = self._structure_hu(self.before, inner)
        labels = np.where(self.mask, LABEL, self.liver).astype(np.uint8)
        ratios = noise_ratios(self.hu, labels, self.statistics, self.spacing_mm)
        if ratios is not None:
            found["sd_ratio"], found["power_ratio"] = ratios
        return found

    def _structure_hu(self, hu: np.ndarray, inner: np.ndarray) -> float:
        """Of voxels of the tumor only: its border is no structure."""
        sigma, weight = 2 / np.asarray(self.spacing_mm), self.mask.astype(np.float32)
        smooth = gaussian_filter(hu * weight, sigma) / np.maximum(gaussian_filter(weight, sigma), 1e-3)
        return float(smooth[inner].std())


def real_tumors(data: Path, *, diameters_mm: tuple[float, float] = (0.0, EARLY_MM)) -> list[Tumor]:
    """The metastases of liver_tumors whose equivalent diameter is in an interval, its upper end excluded."""
    ct = read_ct(data / REAL / "ct.nii.gz")
    labels = read_labels(data / REAL / "labels.nii.gz", like=ct)
    statistics = _statistics(ct, labels)
    components, count = label(labels == 2)
    found = [
        Tumor(ct.hu, components == n + 1, spacing_mm=ct.spacing_mm, statistics=statistics, liver=labels == 1)
        for n in range(count)
    ]
    low, high = diameters_mm
    return [tumor for tumor in found if low <= tumor.figures["diameter_mm"] < high]


def drawn_tumors(commands: Commands, folder: Path, scan: Path, *, options: tuple = ()) -> list[Tumor]:
    ct = read_ct(scan / "ct.nii.gz")
    labels = read_labels(scan / "labels.nii.gz", like=ct)
    statistics, tumors = _statistics(ct, labels), []
    for size, seed in DRAWN:
        out = folder / f"{size}_{seed}"
        commands.run(
            *("difftumor", "synthesize", scan / "ct.nii.gz", "--organ-mask", scan / "labels.nii.gz", "-o", out),
            *("--organ", "liver", "--organ-label", 1, "--size", size, "--seed", seed, "--count", 1, *options),
        )
        mask = read_labels(out / "tumor_mask.nii.gz", like=ct) > 0
        hu = read_ct(out / "ct.nii.gz").hu
        tumors.append(Tumor(hu, mask, spacing_mm=ct.spacing_mm, statistics=statistics, liver=labels == 1, before=ct.hu))
    return tumors


def _statistics(ct, labels: np.ndarray) -> OrganStatistics:
    return OrganStatistics.measure(ct.hu, labels, organ=Organ("liver", (1,), LABEL, (2,)), spacing_mm=ct.spacing_mm)


def summary(tumors: list[Tumor]) -> dict[str, Any]:
    figures = [tumor.figures for tumor in tumors]
    medians, measured = {}, {}
    for measure in MEASURES:
        values = [one[measure] for one in figures if one[measure] is not None]
        measured[measure] = len(values)
        medians[measure] = round(float(np.median(values)), 3) if values else None
    return {"count": len(tumors), "measured": measured, "median": medians, "each": figures}


def trained_as(folder: Path, weights: Path) -> dict[str, Any]:
    """What the weights come from: settings, steps and versions of both trainings, and the autoencoder's curve."""
    curve = folder / "curve.json"
    sources = {}
    for path in sorted(weights.glob("*.safetensors")):
        source = json.loads(path.with_suffix(".json").read_text())["source"]
        sources[path.stem] = {key: source[key] for key in ("settings", "steps", "validation", "made_with")}
    return {"curve": json.loads(curve.read_text()) if curve.is_file() else {}, "weights": sources}


def draw(path: Path, rows: dict[str, list[Tumor]]) -> None:
    """A row per kind, a column per tumor: the slice with most of it and 16 mm around, and the same with its outline."""
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(2.4 * columns, 5.2 * len(rows)), facecolor="black")
    axes = figure.subplots(2 * len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (kind, tumors) in enumerate(rows.items()):
        for column, tumor in enumerate(sorted(tumors, key=lambda one: -one.mask.sum())):
            z = int(tumor.mask.sum((1, 2)).argmax())
            for axis in axes[2 * row : 2 * row + 2, column]:
                axis.imshow(tumor.hu[z], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            axes[2 * row + 1, column].contour(tumor.mask[z], levels=[0.5], colors="red", linewidths=0.7)
            figures = tumor.figures
            contrast = "" if figures["contrast_hu"] is None else f", {figures['contrast_hu']:.0f} HU"
            axes[2 * row, column].set_title(f"{kind} {figures['diameter_mm']:.0f} mm{contrast}", color="w", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80, facecolor="black")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="the folder that generative_demo.py filled")
    parser.add_argument("--pair", choices=["seen", "unseen"], default="seen")
    args = parser.parse_args()
    data, trained = Path(os.environ["DIFFTUMOR_TEST_DATA"]), args.demo.absolute() / args.pair
    (weights,) = {path.parent for path in trained.glob("nnUNet_results/*/generative/liver_early.safetensors")}
    out = trained / "comparison"
    commands = Commands(nnunet_variables(out), out / "logs")
    scan = out / "scan"
    copy_scan(data, BASE, scan)
    diffusion = ("--renderer", "diffusion", "--weights", weights)
    rows = {
        "real": real_tumors(data),
        "hand-crafted": drawn_tumors(commands, out / "handcrafted", scan),
        "diffusion": drawn_tumors(commands, out / "diffusion", scan, options=diffusion),
    }
    result = {kind: summary(tumors) for kind, tumors in rows.items()}
    write_json(out / "result.json", {**trained_as(trained, weights), "tumors": result})
    draw(out / "comparison.png", rows)
    print(f"{'':<14}{'tumors':>8}" + "".join(f"{measure:>26}" for measure in MEASURES))
    for kind, found in result.items():
        cells = ("-" if value is None else f"{value:.2f}" for value in found["median"].values())
        print(f"{kind:<14}{found['count']:>8}" + "".join(f"{cell:>26}" for cell in cells))
    median = result["diffusion"]["median"]
    held = abs(median["contrast_hu"]) >= MIN_CONTRAST_HU
    held &= median["structure_hu"] > median["structure_of_constant_hu"]
    print(f"{out / 'comparison.png'}\n{'all bars held' if held else 'a bar was MISSED'}")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
