"""What `DiffusionRenderer.render` takes, arrays to arrays, and which parts of it: the product's own path to a tumor.

A ball of liver in a noisy scan of 1 x 0.8 x 0.8 mm, tumors of every size as the preset `realistic` draws them, networks
of the published size with random weights, which decide the numbers and not the time. Rows go to the CSV file of
--results as they are made.

Run: python benchmarks/render_times.py --device cuda (minutes on a CPU; --sizes tiny --tumors 2 is quicker).
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from result_rows import UNTRACKED, append_rows, provenance

SIZES = ("tiny", "small", "medium", "large")
BATCHES = (1, 8)
SPACING_MM = (1.0, 0.8, 0.8)
SHAPE = (200, 260, 260)


@dataclass(frozen=True)
class RenderRow:
    """Medians over the calls, in milliseconds for each tumor.

    `site_ms` is shape and room, `load_ms` packs a batch and copies it to the device, `draw_ms` is all that the device
    does, with the copy back; `beside_networks_ms` is what of it is not the networks, which a GPU's graphs do not tell.
    `remark` says why there is no time.
    """

    size: str
    batch: int
    tumors: int
    render_ms: float | None
    slowest_ms: float | None
    site_ms: float | None
    load_ms: float | None
    draw_ms: float | None
    beside_networks_ms: float | None
    remark: str = ""


def scene() -> tuple[Any, Any, Callable]:
    """A scan, its organ, and what samples a tumor there; the same every time."""
    from nnunet_difftumor.synthesis.organ import Organ
    from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
    from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
    from nnunet_difftumor.synthesis.volume import ArrayVolume

    axes = zip(np.ogrid[tuple(map(slice, SHAPE))], SHAPE, SPACING_MM, strict=True)
    radius_mm = sum(((axis - extent / 2) * step) ** 2 for axis, extent, step in axes) ** 0.5
    hu = np.random.default_rng(0).normal(0, 15, SHAPE).astype(np.float32)
    hu += np.where(radius_mm < 110, np.float32(110), np.float32(-100))
    labels, organ = (radius_mm < 90).astype(np.uint8), Organ("liver", (1,), 2, ())
    statistics = OrganStatistics.measure(hu, labels, organ=organ, spacing_mm=SPACING_MM)
    volume, sampler = ArrayVolume(hu, labels, SPACING_MM, np.eye(3)), TumorSampler(organ, "realistic")
    return volume, organ, lambda rng, size: sampler.sample(volume, statistics, rng, size=size)


def specs_of(sample: Callable, size: str, count: int) -> list[Any]:
    """Tumors of a size for the diffusion renderer."""
    from nnunet_difftumor.synthesis.networks.diffusion import as_diffusion
    from nnunet_difftumor.synthesis.placement.sampler import Placement

    drawn = (sample(np.random.default_rng((7, number)), size) for number in range(4 * count))
    specs = list(islice((as_diffusion(found.spec) for found in drawn if isinstance(found, Placement)), count))
    if len(specs) < count:
        raise RuntimeError(f"only {len(specs)} of {count} {size} tumors found room: a larger ball is needed")
    return specs


def open_renderer(weights: Path, device: str) -> Any:
    """As the product opens it for one organ, with weights that are made where there are none."""
    from live_epoch import write_random_weights

    from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer
    from nnunet_difftumor.synthesis.networks.weights import DiffusionWeights, load_models

    if not any(weights.glob("*.safetensors")):
        write_random_weights(weights)
    models = load_models([DiffusionWeights(weights, "liver")], ("early", "late"))
    return DiffusionRenderer({stage: model for (_, stage), model in models.items()}, organ="liver", device=device)


@contextmanager
def parts(device: str) -> Iterator[dict[str, list[float]]]:
    """Milliseconds of every call of the parts of `render` within it."""
    from nnunet_difftumor.synthesis.networks import diffusion
    from nnunet_difftumor.synthesis.networks.device_program import DeviceProgram

    places = [
        ("site_ms", diffusion, "site_of"),
        ("load_ms", diffusion.DiffusionRenderer, "load"),
        ("draw_ms", diffusion.DiffusionRenderer, "draw_loaded"),
    ]
    if device == "cpu":
        places += [("beside_networks_ms", DeviceProgram, name) for name in ("network_input", "blended")]
    times: dict[str, list[float]] = {name: [] for name, _, _ in places}

    def timed(name: str, call: Callable) -> Callable:
        def run(*args, **kwargs):
            start = time.perf_counter()
            result = call(*args, **kwargs)
            _wait(device)
            times[name].append(1e3 * (time.perf_counter() - start))
            return result

        return run

    with ExitStack() as stack:
        for name, owner, attribute in places:
            stack.enter_context(patch.object(owner, attribute, timed(name, getattr(owner, attribute))))
        yield times


def rows(
    device: str,
    *,
    weights: Path,
    sizes: Sequence[str] = SIZES,
    batches: Sequence[int] = BATCHES,
    tumors: int = 16,
    left_s: Callable[[], float] = lambda: math.inf,
) -> Iterator[RenderRow]:
    """A row for each size and batch, while there is time.

    Args:
        device: cpu or cuda.
        weights: folder of weights, filled if there are none.
        sizes, batches: what is timed; the first batch of all sizes comes first.
        tumors: of each row, at least a batch.
        left_s: seconds until nothing more is begun.
    """
    from nnunet_difftumor.synthesis.scene import patch_of

    renderer = open_renderer(weights, device)
    volume, organ, sample = scene()
    for batch in batches:
        for size in sizes:
            count = max(1, tumors // batch) * batch
            empty = RenderRow(size, batch, count, None, None, None, None, None, None)
            if left_s() < 0:
                yield RenderRow(**(vars(empty) | {"remark": "left out: no time left"}))
                continue
            specs = specs_of(sample, size, count)
            patches = [patch_of(volume, spec, organ, box=renderer.region(volume, spec)) for spec in specs]
            renderer.render(patches[:batch], specs[:batch])  # kernels are compiled and chosen
            whole = []
            with parts(device) as times:
                for first in range(0, count, batch):
                    start = time.perf_counter()
                    renderer.render(patches[first : first + batch], specs[first : first + batch])
                    _wait(device)
                    whole.append(1e3 * (time.perf_counter() - start) / batch)
                    if left_s() < 0:
                        break
            calls = len(whole) * batch
            each = {name: sum(found) / calls for name, found in times.items()}
            yield RenderRow(size, batch, calls, median(whole), max(whole), **{"beside_networks_ms": None} | each)


def table(rows: Sequence[RenderRow]) -> str:
    """For people."""
    names = ("render_ms", "slowest_ms", "site_ms", "load_ms", "draw_ms", "beside_networks_ms")
    heads = (name.removesuffix("_ms").replace("_", " ") for name in names)
    lines = [f"{'ms for each tumor':<20}" + "".join(f"{head:>17}" for head in heads)]
    for row in rows:
        found = [getattr(row, name) for name in names]
        cells = "".join(f"{value:17.1f}" if value is not None else f"{'-':>17}" for value in found)
        cells = row.remark or cells
        lines.append(f"{f'{row.size}, batch {row.batch}':<20}{cells}")
    return "\n".join(lines)


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--tumors", type=int, default=16, help="of each size and batch (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=UNTRACKED, help="folder of render_times.csv (%(default)s)")
    args = parser.parse_args()
    made, found = provenance(args.device), []
    with tempfile.TemporaryDirectory() as folder:
        choices = {"sizes": args.sizes, "batches": args.batches, "tumors": args.tumors}
        for row in rows(args.device, weights=Path(folder), **choices):
            append_rows(args.results / "render_times.csv", [row], made)
            found.append(row)
            print(table([row]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
