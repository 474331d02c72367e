"""Evaluate the cross-validation of a model: every fold, mean and standard deviation over folds, all cases together.

MODEL_FOLDER holds fold_0/validation, fold_1/validation, ... as nnU-Net writes them at the end of trainings.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options
from nnunet_difftumor.cli.evaluate import add_measures, measures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model_folder", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION in nnU-Net's results"
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="FOLDER",
        help="of the true label maps (default: gt_segmentations in the preprocessed dataset)",
    )
    parser.add_argument(
        "-f", "--folds", type=options.not_negative, nargs="+", default=[], metavar="N", help="(default: all)"
    )
    add_measures(parser)
    options.add_out(parser, "write all figures to this JSON file", metavar="FILE")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.crossval import crossval, table

    content = crossval(
        args.model_folder,
        ground_truth=args.ground_truth,
        folds=args.folds,
        output=args.output,
        report=args.say,
        **measures(args),
    )
    print(table(content))
    if args.output:
        print(f"\nwritten: {args.output}")
