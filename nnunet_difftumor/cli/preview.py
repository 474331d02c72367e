"""Draw what the trainer will see of a prepared dataset, before any training.

A picture per organ has a row per size, with several draws in several cases, each before and after; mix.png shows the
mix of the training: with the seed of difftumor.json the very first synthetic samples of fold 0, uncropped and without
augmentation. report.html has all of it on one page, preview.json the specs. Run it again after editing
difftumor.json.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset-id", type=int, required=True, help="of a dataset that was prepared")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="for the pictures (default: in the preprocessed dataset)"
    )
    parser.add_argument("--configuration", default="3d_fullres", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of everything random (default: the one in difftumor.json)")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="also write sweep.gif, through the slices of one case with tumors of every size",
    )


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.pictures.preview import preview

    preview(
        args.dataset_id,
        output=args.output,
        configuration=args.configuration,
        seed=args.seed,
        sweep=args.sweep,
    )
