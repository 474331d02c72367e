"""What one synthetic tumor costs on a CPU, against one Gaussian filter of the whole scan, timed side by side.

One call places, draws, renders and writes a tumor in place into a float32 scan of 366 x 303 x 156 voxels at 1 mm, with
the vessel test. The reference is scipy.ndimage.gaussian_filter(volume_float64, 1). Exits 1 when a bar is missed.

With --renderer diffusion: what a tumor costs that the networks draw, against the public code
(diffusion_cpu.py).
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.volume import ArrayVolume

SHAPE = (156, 303, 366)
SPACING_MM = (1.0, 1.0, 1.0)
ORGAN = Organ("liver", (1,), 2)
BARS = {"tiny": 0.08, "small": 0.08, "medium": 0.2, "large": 0.6}
STATISTICS_BAR = 0.5
MEMORY_BAR_MB = 100


def liver_like(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU float32 and labels uint8: a liver of 1.6 litres with bright vessels, correlated noise, fat around."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.arange(size, dtype=np.float32) for size in SHAPE)
    z, y, x = z[:, None, None] - 78, y[None, :, None] - 140, x[None, None, :] - 150
    labels = ((z / 70) ** 2 + (y / 72) ** 2 + (x / 78) ** 2 <= 1).astype(np.uint8)
    hu = np.where(labels == 1, np.float32(110), np.float32(-90))
    for _ in range(12):
        point, direction = rng.uniform(-45, 45, 3), rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        offset = [axis - np.float32(value) for axis, value in zip((z, y, x), point, strict=True)]
        along = sum(part * np.float32(value) for part, value in zip(offset, direction, strict=True))
        across = sum(part * part for part in offset) - along * along
        hu[(across < rng.uniform(2, 5) ** 2) & (labels == 1)] = 170
    noise = gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 0.8)
    return hu + noise * np.float32(20 / noise.std()), labels


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Scan:
    """The liver that tumors are put into; `reference` has the seconds of each Gaussian filter of it."""

    def __init__(self):
        self.hu, self.labels = liver_like()
        self.untouched = self.hu.copy(), self.labels.copy()
        self.in_float64 = self.hu.astype(np.float64)
        self.statistics = self.measured()
        self.sampler = TumorSampler(ORGAN)
        self.reference: list[float] = []

    def measured(self) -> OrganStatistics:
        return OrganStatistics.measure(self.hu, self.labels, organ=ORGAN, spacing_mm=SPACING_MM)

    def filter(self) -> None:
        """Times the reference once more."""
        self.reference.append(seconds(lambda: gaussian_filter(self.in_float64, 1)))

    def one_tumor(self, size: str, seed: int) -> list[RenderedTumor]:
        volume = ArrayVolume(self.hu, self.labels, SPACING_MM)
        placed, _ = self.sampler.sample_scene(volume, self.statistics, np.random.default_rng(seed), size=size, count=1)
        return insert_tumors(volume, [placement.spec for placement in placed], ORGAN)

    def timed(self, size: str, seed: int) -> float:
        """Seconds of one tumor; the next finds the scan as it was."""
        start = time.perf_counter()
        rendered = self.one_tumor(size, seed)
        elapsed = time.perf_counter() - start
        assert len(rendered) == 1 and rendered[0].mask.any(), f"no {size} tumor was placed with seed {seed}"
        box = rendered[0].box
        self.hu[box], self.labels[box] = self.untouched[0][box], self.untouched[1][box]
        return elapsed

    def missed(self, name: str, times: list[float], bar: float) -> bool:
        """Prints a line; whether these times, in reference filters, are above the bar."""
        ratio = median(times) / median(self.reference)
        print(f"{name:<10} {median(times) * 1e3:7.1f} ms   ratio {ratio:.3f}   bar {bar}")
        return ratio > bar


def tumors(scan: Scan, size: str, repeats: int) -> list[float]:
    """Seconds of each tumor of a size, with filters of the scan among them."""
    scan.timed(size, 10_000)
    times = []
    for seed in range(repeats):
        if seed % 5 == 0:
            scan.filter()
        times.append(scan.timed(size, seed))
    return times


def measurements(scan: Scan) -> list[float]:
    """Seconds of measuring the organ, likewise."""
    times = []
    for _ in range(5):
        times.append(seconds(scan.measured))
        scan.filter()
    return times


def peak_mb(scan: Scan) -> float:
    """Memory that a large tumor takes over the scan."""
    tracemalloc.start()
    scan.one_tumor("large", 0)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def handcrafted(repeats: int) -> int:
    """Measures and prints; 1 if a bar is missed."""
    scan = Scan()
    for _ in range(3):
        scan.filter()
    print(f"reference: {median(scan.reference) * 1e3:.0f} ms")
    missed = [scan.missed(size, tumors(scan, size, repeats), bar) for size, bar in BARS.items()]
    missed.append(scan.missed("statistics", measurements(scan), STATISTICS_BAR))
    peak = peak_mb(scan)
    missed.append(peak > MEMORY_BAR_MB)
    print(f"memory     {peak:7.1f} MB over the input   bar {MEMORY_BAR_MB}")
    print("MISSED" if any(missed) else "all bars held")
    return int(any(missed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renderer", choices=("handcrafted", "diffusion"), default="handcrafted")
    parser.add_argument("--repeats", type=int, help="default: 60, of diffusion 5")
    parser.add_argument("--table", action="store_true", help="of diffusion: print the stored result, measure nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="of diffusion: gets the result")
    parser.add_argument("--store", action="store_true", help="of diffusion: replace the result in benchmarks/results")
    args = parser.parse_args()
    if args.renderer == "handcrafted":
        # Of fewer the median is that of a few shapes: by seeds alone it moves by a quarter.
        return handcrafted(args.repeats or 60)
    import diffusion_cpu

    results = diffusion_cpu.RESULTS
    if args.table:
        return diffusion_cpu.main(0, out=args.json, stored=results)
    return diffusion_cpu.main(args.repeats or 5, out=results if args.store else args.json)


if __name__ == "__main__":
    sys.exit(main())
