"""Generative models trained on a handful of public CT scans, on a CPU: how far that goes, and weights for tests.

Two pairs of weights, each made by the package's own commands with the settings and seeds below. What is done is kept;
an interrupted call resumes.

seen: the autoencoder on liver_tumors and liver_healthy, without a slab of 20 slices of the latter, which with
    abdomen_3mm is kept for measuring; the early diffusion model on the metastases below 20 mm of liver_tumors.
unseen: nothing of liver_tumors. The autoencoder on liver_healthy and abdomen_3mm, the early diffusion model on tumors
    that `difftumor synthesize` drew into them by hand-crafting.

The autoencoder that has seen liver_tumors is trained in stages; after each `difftumor reconstruct` measures it on the
two scans that are kept out, so that curve.json has figures over steps. Reads the folder that DIFFTUMOR_TEST_DATA names.
Weights stay outside of the repository: the scans' licences do not allow more.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor.demonstration.commands import Commands, nnunet_variables
from nnunet_difftumor.files import write_json

SEED = 0
LABELS = {"liver": 1, "liver_tumor": 2}
# Value of the liver in each scan's label map; liver_tumors has tumors as 2.
LIVERS = {"liver_tumors": 1, "liver_healthy": 1, "abdomen_3mm": 5}
SLAB = slice(40, 60)  # slices of liver_healthy, counted from the feet
AUTOENCODER_STEPS = (250, 500, 1000)
DIFFUSION_STEPS = 600
AUTOENCODER = {
    "learning_rate": 5e-4,
    # Never: on a CPU there is no time for the discriminators to learn anything.
    "discriminator_start": 1_000_000,
    "validate_every": 500,
    "validation_crops": 8,
    "seed": SEED,
}
DIFFUSION = {"batch_size": 8, "validate_every": 500, "validation_crops": 8, "seed": SEED}
# Tumors of these sizes and seeds in every scan, for the pair that has seen no real one.
HANDCRAFTED = [(size, seed) for size in ("tiny", "small") for seed in range(6)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--pair", choices=["seen", "unseen"], required=True)
    parser.add_argument("--autoencoder-steps", type=int, nargs="+", default=AUTOENCODER_STEPS)
    parser.add_argument("--diffusion-steps", type=int, default=DIFFUSION_STEPS)
    args = parser.parse_args()
    data, folder = Path(os.environ["DIFFTUMOR_TEST_DATA"]), args.out.absolute() / args.pair
    commands = Commands(nnunet_variables(folder), folder / "logs")
    make = {"seen": seen, "unseen": unseen}[args.pair]
    make(commands, folder, data, autoencoder_steps=args.autoencoder_steps, diffusion_steps=args.diffusion_steps)
    return 0


def seen(commands: Commands, folder: Path, data: Path, *, autoencoder_steps, diffusion_steps: int) -> None:
    scans = folder / "scans"
    copy_scan(data, "liver_tumors", scans / "liver_tumors")
    copy_scan(data, "abdomen_3mm", scans / "abdomen_3mm")
    parts = {"slab": SLAB, "below": slice(0, SLAB.start), "above": slice(SLAB.stop, None)}
    for name, part in parts.items():
        copy_scan(data, "liver_healthy", scans / f"liver_healthy_{name}", slices=part)
    kept_out = ["abdomen_3mm", "liver_healthy_slab"]
    training = sorted({path.name for path in scans.iterdir()} - set(kept_out))
    preprocess(commands, folder, scans, dataset=31)
    cases = {"training_cases": training, "validation_cases": kept_out}
    train_autoencoder(
        commands, folder, 31, steps=autoencoder_steps, cases=cases, measured={k: scans / k for k in kept_out}
    )
    train_diffusion(commands, 31, steps=diffusion_steps)


def unseen(commands: Commands, folder: Path, data: Path, *, autoencoder_steps, diffusion_steps: int) -> None:
    scans, drawn = folder / "scans", folder / "drawn"
    for name in ("liver_healthy", "abdomen_3mm"):
        copy_scan(data, name, scans / name)
    preprocess(commands, folder, scans, dataset=32)
    train_autoencoder(commands, folder, 32, steps=autoencoder_steps[-1:], cases={}, measured={})
    for name in ("liver_healthy", "abdomen_3mm"):
        for size, seed in HANDCRAFTED:
            scan, out = scans / name, drawn / f"{name}_{size}_{seed}"
            commands.run(
                *("difftumor", "synthesize", scan / "ct.nii.gz", "--organ-mask", scan / "labels.nii.gz", "-o", out),
                *("--organ", "liver", "--organ-label", 1, "--tumor-label", 2, "--size", size, "--seed", seed),
                # On a scan without contrast agent realistic tumors are 8 HU darker, too little to learn from few.
                *("--contrast-hu", -50, -25),
            )
    preprocess(commands, folder, drawn, dataset=33)
    weights = next((folder / "nnUNet_results").glob("Dataset032_*")) / "generative"
    options = ("--autoencoder", weights / "autoencoder.safetensors", "-o", weights)
    train_diffusion(commands, 33, steps=diffusion_steps, options=options)


def copy_scan(data: Path, name: str, folder: Path, *, slices: slice = slice(None)) -> None:
    """The scan, or some of its slices counted from the feet, with liver 1 and tumor 2 as labels."""
    if (folder / "labels.nii.gz").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    ct, labels = (nib.as_closest_canonical(nib.load(data / name / f"{file}.nii.gz")) for file in ("ct", "labels"))
    values = np.asarray(labels.dataobj)
    liver = (values == LIVERS[name]).astype(np.uint8)
    if name == "liver_tumors":
        liver[values == 2] = 2
    for file, array, like in (("ct", np.asarray(ct.dataobj), ct), ("labels", liver, labels)):
        part = nib.Nifti1Image(array, like.affine).slicer[:, :, slices]
        nib.save(part, folder / f"{file}.nii.gz")


def preprocess(commands: Commands, folder: Path, scans: Path, *, dataset: int) -> None:
    if not list((folder / "nnUNet_preprocessed").glob(f"Dataset{dataset:03d}_*/generative")):
        commands.run(
            *("difftumor", "convert", "folder", "-i", scans, "-d", dataset, "--name", "Generative", "--overwrite"),
            *("--labels", *(f"{name}={value}" for name, value in LABELS.items())),
        )
    commands.run("difftumor", "preprocess-generative", "-d", dataset, "--organ", "liver=1:2")


def train_autoencoder(commands: Commands, folder: Path, dataset: int, *, steps, cases: dict, measured: dict) -> None:
    """In stages of so many steps, with figures of the scans that are measured after each."""
    curve_file = folder / "curve.json"
    curve = json.loads(curve_file.read_text()) if curve_file.is_file() else {}
    for stage in steps:
        if str(stage) in curve:
            continue
        commands.run(
            *("difftumor", "train-autoencoder", "-d", dataset, "--preset", "tiny", "--steps", stage, "--device", "cpu"),
            *settings(AUTOENCODER | cases),
        )
        weights = next((folder / "nnUNet_results").glob(f"Dataset{dataset:03d}_*")) / "generative"
        curve[str(stage)] = {}
        for name, scan in measured.items():
            out = folder / "reconstructed" / f"{name}_{stage}"
            commands.run(
                *("difftumor", "reconstruct", scan / "ct.nii.gz", "--organ-mask", scan / "labels.nii.gz"),
                *("--weights", weights, "-o", out),
            )
            figures = json.loads((out / "reconstruction.json").read_text())
            curve[str(stage)][name] = {key: figures[key] for key in ("psnr_db", "ssim", "mae_hu")}
        write_json(curve_file, curve)


def train_diffusion(
    commands: Commands,
    dataset: int,
    *,
    steps: int,
    stage: str = "early",
    options: tuple = (),
    changed: dict | None = None,
) -> None:
    """Trains a model of the liver's tumors; `changed` are settings over those of this page."""
    commands.run(
        *("difftumor", "train-diffusion", "-d", dataset, "--organ", "liver", "--stage", stage, "--preset", "tiny"),
        *("--steps", steps, "--device", "cpu", *options, *settings(DIFFUSION | (changed or {}))),
    )


def settings(values: dict) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


if __name__ == "__main__":
    sys.exit(main())
