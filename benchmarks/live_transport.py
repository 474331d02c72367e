"""How many requests a second go to a synthesis server and back, where drawing costs nothing.

A region of 96 mm at 0.8 mm as int16 (3.5 MB), other bytes in every request, goes to a server process of its own, and
the blended voxels of a tumor of 20 mm come back; both sides compute a checksum of what they got. Exits 1 below the bar
or with a wrong byte.
"""

import argparse
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np

from nnunet_difftumor.pipeline.live.client import Drawn, LiveClient
from nnunet_difftumor.pipeline.live.server import ServerTask
from nnunet_difftumor.pipeline.live.server_keeper import ServerKeeper
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid
from nnunet_difftumor.synthesis.networks.sketch import Sketch
from nnunet_difftumor.synthesis.spec import TumorSpec

BAR = 200.0
FACTORY = "live_transport:make"
REGION, NEAR = 120, 25
# As many requests of a worker wait as it has in two batches of two samples.
IN_FLIGHT = 8
_ROUND = 2**24  # of numbers that float32 holds exactly


class Checksums:
    """In place of a renderer: what comes back is a function of every byte that came."""

    def load(self, sketches: Sequence[Sketch]) -> list[int]:
        return [zlib.adler32(sketch.hu) for sketch in sketches]

    def draw_loaded(self, sketches: Sequence[Sketch], loaded: list[int]) -> list[np.ndarray]:
        return [changed(sketch, checksum) for sketch, checksum in zip(sketches, loaded, strict=True)]


def make(**_) -> Checksums:
    """The factory of the server."""
    return Checksums()


def changed(sketch: Sketch, checksum: int) -> np.ndarray:
    """What the server answers."""
    return sketch.before * np.float32(1 / 16) + np.float32(checksum % _ROUND)


def sketch() -> Sketch:
    """A region with a tumor in its middle."""
    spec = TumorSpec("liver", "small", (48.0,) * 3, (8.0,) * 3, (1.0, 0, 0, 0), 0.0, 100.0, 0.0, 0.0, 1.0, 0.0, 0.9, 0)
    grid = NetworkGrid((0, 1, 2), (96,) * 3, (0.0,) * 3, (1.0,) * 3, (0.8,) * 3)
    box, near = (slice(0, REGION),) * 3, (slice(48, 48 + NEAR),) * 3
    hu = np.random.default_rng(0).integers(-2000, 4000, (REGION,) * 3, dtype=np.int16)
    inner = (NEAR,) * 3
    return Sketch(
        replace(spec, renderer="diffusion"),
        grid,
        box,
        near,
        near,
        hu,
        hu[near].copy(),
        np.ones(inner, bool),
        np.ones(inner, bool),
        np.full(inner, 0.5, np.float32),
    )


def measure(seconds: float) -> tuple[float, int]:
    """Requests per second, and how many were answered with wrong bytes."""
    task = ServerTask(folder="", parent=0, factory=FACTORY, batch_size=8, batch_wait_ms=1.0)
    with tempfile.TemporaryDirectory() as folder:
        keeper = ServerKeeper(task, log=Path(folder) / "server.log")
        keeper.start()
        try:
            client, region = LiveClient(keeper.address, timeout_s=20), sketch()
            flat, waiting, done, wrong = region.hu.reshape(-1), deque(), 0, 0
            until = start = time.perf_counter()
            while until - start < seconds or waiting:
                if until - start < seconds:
                    flat += 1  # other bytes everywhere
                    region.before[...] = region.hu_of(region.near)
                    waiting.append((client.ask("case", region), zlib.adler32(region.hu), region.before.copy()))
                if len(waiting) >= IN_FLIGHT or until - start >= seconds:
                    number, checksum, before = waiting.popleft()
                    (found,) = client.answers([number])
                    expected = changed(replace(region, before=before), checksum)
                    if not isinstance(found, Drawn) or zlib.adler32(found.hu) != zlib.adler32(expected):
                        wrong += 1
                    done += 1
                until = time.perf_counter()
            return done / (until - start), wrong
        finally:
            keeper.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    rate, wrong = measure(args.seconds)
    print(f"{rate:.0f} requests a second (bar {BAR:.0f}), {wrong} with wrong bytes")
    return int(rate < BAR or wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
