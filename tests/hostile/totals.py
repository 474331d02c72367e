"""Tries damaged and hostile inputs in processes of their own, and counts what came of them.

`python tests/hostile/totals.py --inputs 2000 --store` makes the table of docs/security.md.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a process that is forked off has none of the others

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from result_rows import provenance
from targets import Target, beside, targets

from nnunet_difftumor.errors import InputError

LONGEST_S, MOST_MB = 20.0, 1024.0
# A process may take no more addresses than that, so that a fault does not take the machine.
_ADDRESSES = 8 << 30
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "hostile_inputs.json"


@dataclass
class Total:
    """Of one kind of input."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    most_mb: float = 0.0
    faults: list[str] = field(default_factory=list)


def run(inputs: int, *, seed: int = 0) -> dict[str, Total]:
    """Tries so many inputs, of all kinds alike; a fault says kind and number, with which it comes again."""
    totals: dict[str, Total] = {}
    with tempfile.TemporaryDirectory(prefix="hostile-") as base:
        (Path(base) / "sound").mkdir()
        kinds = targets(Path(base) / "sound")
        for number, target in _trials(kinds, inputs):
            total = totals.setdefault(target.name, Total())
            total.inputs += 1
            _count(total, target, number, _tried(target, Path(base) / "trial", seed=seed, number=number))
    return totals


def _trials(kinds: Sequence[Target], inputs: int) -> Iterator[tuple[int, Target]]:
    for number in range(inputs):
        yield number // len(kinds), kinds[number % len(kinds)]


def _count(total: Total, target: Target, number: int, seen: dict) -> None:
    total.slowest_s = max(total.slowest_s, seen["seconds"])
    total.most_mb = max(total.most_mb, seen["mb"])
    total.refused += seen["end"] == "refused"
    total.accepted += seen["end"] == "accepted"
    where = f"{target.name} {number}"
    if seen["end"] not in ("refused", "accepted"):
        total.faults.append(f"{where}: {seen['end']}")
    if seen["mb"] > MOST_MB:
        total.faults.append(f"{where}: {seen['mb']:.0f} MB")
    if seen["outside"]:
        total.faults.append(f"{where}: wrote {seen['outside']}")


def _tried(target: Target, folder: Path, *, seed: int, number: int) -> dict:
    random = np.random.default_rng((seed, crc32(target.name.encode()), number))
    shutil.rmtree(folder, ignore_errors=True)
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    path = inner / target.file.name
    path.write_bytes(target.change(target.file.read_bytes(), random))
    beside(target, path)
    size_mb, before = path.stat().st_size / 2**20, _files(folder)
    said, start = folder / "said", time.monotonic()
    child = os.fork()
    if child == 0:
        _read(target, path, said)
    seen = {"end": _waited(child, said), "seconds": time.monotonic() - start, "mb": 0.0}
    with suppress(OSError, ValueError):
        seen |= json.loads(said.read_text())
    seen["mb"] = max(0.0, seen["mb"] - size_mb)
    made = _files(folder) - before - {said}
    allowed = (inner / "out", inner / "autoencoder.json", inner / "autoencoder.safetensors")
    seen["outside"] = [str(file) for file in made if not any(file == a or a in file.parents for a in allowed)]
    return seen


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _waited(child: int, said: Path) -> str:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "said nothing" if not said.is_file() else f"ended with status {status}"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"not done after {LONGEST_S:g} s"


def _read(target: Target, path: Path, said: Path) -> None:
    """In a process of its own, which ends here."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        output = os.open(said.with_name("output"), os.O_CREAT | os.O_RDWR)
        os.dup2(output, 1)
        os.dup2(output, 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end = _end_of(target, path, said.with_name("output"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        said.with_name("output").unlink()
        said.write_text(json.dumps({"end": end, "mb": grown / 1024}))
    finally:
        os._exit(0)


def _end_of(target: Target, path: Path, output: Path) -> str:
    try:
        status = target.read(path)
    except InputError as error:
        # Of a library: what was seen, in a line or a few.
        return "refused" if len(str(error)) < 2000 and str(error).count("\n") < 5 else f"says too much: {error}"
    except BaseException:
        return traceback.format_exc(limit=-4)
    if not isinstance(status, int) or isinstance(status, bool):
        return "accepted"
    sys.stdout.flush()
    sys.stderr.flush()
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    if status == 0:
        return "accepted"
    return "refused" if status == 2 and len(lines) == 1 else f"status {status}: {lines[-3:]}"


def table(totals: dict[str, dict]) -> str:
    """Of docs/security.md."""
    lines = ["| kind | inputs | refused | read, since it did not matter | slowest, s | most memory, MB | faults |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind, one in totals.items():
        figures = f"{one['slowest_s']:.1f} | {one['most_mb']:.0f} | {len(one['faults'])}"
        lines.append(f"| {kind} | {one['inputs']} | {one['refused']} | {one['accepted']} | {figures} |")
    return "\n".join(lines)


def main() -> int:
    """Exits 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", action="store_true", help="replace the result in benchmarks/results")
    arguments = parser.parse_args()
    totals = {kind: vars(total) for kind, total in run(arguments.inputs, seed=arguments.seed).items()}
    print(table(totals))
    faults = [fault for one in totals.values() for fault in one["faults"]]
    print("\n".join(faults) or "no fault")
    if arguments.store:
        RESULT.write_text(json.dumps({**provenance("cpu"), "totals": totals}, indent=2) + "\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
