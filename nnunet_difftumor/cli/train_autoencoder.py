"""Train the autoencoder of the generative models on what `preprocess-generative` wrote.

Writes autoencoder.safetensors, its JSON, and checkpoints, curve and pictures in runs/autoencoder. After an interruption
(Ctrl-C too) the same command resumes where it stopped. Several GPUs: start it with torchrun (docs/train_generative.md).
"""

import argparse
import sys
from pathlib import Path

# By the names that both trainings have for them.
_OPTIONS = (
    "output",
    "preset",
    "settings",
    "assignments",
    "steps",
    "batch_size",
    "patch_size",
    "seed",
    "device",
    "overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.generative.training.train import train_autoencoder

    return run_training(train_autoencoder, args)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that both trainings have."""
    parser.add_argument("-d", "--dataset-id", type=int, required=True, help="of a preprocessed dataset")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="for weights and runs (default: generative in the dataset's folder in nnUNet_results)",
    )
    parser.add_argument(
        "--preset",
        choices=("paper", "code", "tiny"),
        default="code",
        help="settings of the paper, of the public code, or of a small network for CPUs (default: %(default)s)",
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with some settings, over the preset")
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, over the file; several allowed",
    )
    parser.add_argument("--steps", type=int, help="after which the training is done")
    parser.add_argument("--batch-size", type=int, metavar="N", help="crops per process in memory together")
    parser.add_argument("--patch-size", type=int, nargs=3, metavar=("Z", "X", "Y"), help="in voxels of 1 mm")
    parser.add_argument("--seed", type=int, help="of weights and crops")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="start again; removes the run that is there")


def run_training(train, args: argparse.Namespace, **more) -> int:
    """Calls a training; 0 if it is done, 1 if it diverged, 130 if it was interrupted."""
    from nnunet_difftumor.generative.training.task import DivergedError

    options = {name: getattr(args, name) for name in _OPTIONS}
    try:
        done = train(args.dataset_id, **options, **more)
    except DivergedError as error:
        print(
            f"training stopped: {error}. The last checkpoint is from before; to start again, take a smaller "
            "learning_rate or precision=32, with --overwrite",
            file=sys.stderr,
        )
        return 1
    return 0 if done else 130
