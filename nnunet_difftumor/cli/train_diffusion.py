"""Train a diffusion model of the tumors of one organ, on what `preprocess-generative` wrote.

Early models learn from lesions below 20 mm, late ones from the others. Writes ORGAN_STAGE.safetensors beside the
autoencoder, its JSON, and checkpoints, curve and pictures in runs/. After an interruption (Ctrl-C too) the same command
resumes where it stopped. Several GPUs: start it with torchrun (docs/train_generative.md).
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options
from nnunet_difftumor.cli.train_autoencoder import add_training_arguments, run_training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organ", metavar="NAME", required=True, help="any of those of the dataset")
    options.add_stage(parser, "of tumors: below 20 mm, or the others", required=True)
    parser.add_argument(
        "--autoencoder",
        type=Path,
        metavar="FILE",
        help="its weights (default: autoencoder.safetensors in the output folder)",
    )
    add_training_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.generative.training.train import train_diffusion

    return run_training(train_diffusion, args, organ=args.organ, stage=args.stage, autoencoder=args.autoencoder)
