"""What `difftumor evaluate` costs: seconds of one core and memory, for 50 and for 200 cases of 256^3 voxels.

Label maps of a liver with eight tumors each, predicted with an error of two voxels; ten different cases, linked under
as many names as are asked for. Exits with 1 if a case takes more than 2 s of a core, or memory is above 2 GB or grows
by more than a tenth.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK
from tqdm import tqdm

EDGE, DIFFERENT, COUNTS = 256, 10, (50, 200)
MOST_S, MOST_GB, MOST_GROWTH = 2.0, 2.0, 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npz", action="store_true", help="with probabilities of three classes")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        return measure(args.one, npz=args.npz)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_cases(Path(folder), npz=args.npz)
        for count in COUNTS:
            linked = link_cases(Path(folder), count)
            command = [sys.executable, __file__, "--one", str(linked), *(["--npz"] if args.npz else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[count] = json.loads(done.stdout.splitlines()[-1])
            print(f"{count} cases: {found[count]['seconds']:.2f} s of a core each, at most {found[count]['gb']:.2f} GB")
    few, many = (found[count] for count in COUNTS)
    good = many["seconds"] <= MOST_S and many["gb"] <= MOST_GB and many["gb"] <= MOST_GROWTH * few["gb"]
    print("as wanted" if good else f"expected at most {MOST_S} s, {MOST_GB} GB, and as much memory for both")
    return 0 if good else 1


def write_cases(folder: Path, *, npz: bool) -> None:
    grid = np.ogrid[:EDGE, :EDGE, :EDGE]
    for number in tqdm(range(DIFFERENT), desc="cases", disable=None):
        rng = np.random.default_rng(number)
        liver = sum(((axis - EDGE / 2) / half) ** 2 for axis, half in zip(grid, (90, 100, 110), strict=True)) <= 1
        true, predicted = liver.astype(np.uint8), liver.astype(np.uint8)
        for centre, radius in zip(rng.integers(60, 196, (8, 3)), rng.integers(3, 22, 8), strict=True):
            for labels, shift in ((true, 0), (predicted, 2)):
                near = [slice(max(c + shift - radius, 0), c + shift + radius + 1) for c in centre]
                ball = sum((axis - c - shift) ** 2 for axis, c in zip(np.ogrid[tuple(near)], centre, strict=True))
                labels[tuple(near)][ball <= radius**2] = 2
        for name, labels in (("truth", true), ("predicted", predicted)):
            (folder / name).mkdir(exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(folder / name / f"{number}.nii.gz"), True)
        if npz:
            tumor = (predicted == 2) * np.float32(0.8) + np.float32(0.01)
            probabilities = np.stack(((1 - tumor) * 0.5, (1 - tumor) * 0.5, tumor)).astype(np.float32)
            np.savez_compressed(folder / "predicted" / f"{number}.npz", probabilities=probabilities)
    (folder / "predicted" / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "tumor": 2}}')


def link_cases(folder: Path, count: int) -> Path:
    linked = folder / f"{count}_cases"
    for name in ("truth", "predicted"):
        (linked / name).mkdir(parents=True)
        for number in range(count):
            for suffix in (".nii.gz", ".npz"):
                source = folder / name / f"{number % DIFFERENT}{suffix}"
                if source.is_file():
                    os.link(source, linked / name / f"case_{number:03d}{suffix}")
    os.link(folder / "predicted" / "dataset.json", linked / "predicted" / "dataset.json")
    return linked


def measure(folder: Path, *, npz: bool) -> int:
    """In a process of its own, whose peak of memory is that of one evaluation."""
    from nnunet_difftumor import evaluate

    result = evaluate(folder / "truth", folder / "predicted", probabilities=npz, processes=1, report=lambda line: None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cases = len(result["tumors"]["tumor"]["cases"])
    print(json.dumps({"seconds": (used.ru_utime + used.ru_stime) / cases, "gb": used.ru_maxrss / 1e6}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
