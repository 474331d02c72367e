"""Train the autoencoder of the generative models on what `preprocess-generative` wrote.

Writes autoencoder.safetensors, its JSON, and checkpoints, curve and pictures in runs/autoencoder. After an interruption
(Ctrl-C too) the same command resumes where it stopped. Several GPUs: start it with torchrun (docs/train_generative.md).
"""

import argparse
import sys
from pathlib import Path

from nnunet_difftumor.cli import options

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
    options.add_dataset_id(parser, "of a preprocessed dataset")
    options.add_out(parser, "for weights and runs (default: generative in the dataset's folder in nnUNet_results)")
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
    parser.add_argument("--steps", type=int, metavar="N", help="after which the training is done")
    parser.add_argument("--batch-size", type=int, metavar="N", help="crops per process in memory together")
    options.add_patch_size(parser, " of 1 mm")
    options.add_seed(parser, "of weights and crops")
    options.add_device(parser, default="auto")
    options.add_overwrite(parser, "start again; removes the run that is there")


def run_training(train, args: argparse.Namespace, **more) -> int:
    """Calls a training; 0 if it is done, 1 if it diverged, 130 if it was interrupted."""
    from nnunet_difftumor.generative.training.task import DivergedError

    given = {name: getattr(args, name) for name in _OPTIONS}
    try:
        done = train(args.dataset_id, **given, **more)
    except DivergedError as error:
        print(
            f"training stopped: {error}. The last checkpoint is from before; to start again, take a smaller "
            "learning_rate or precision=32, with --overwrite",
            file=sys.stderr,
        )
        return 1
    return 0 if done else 130
