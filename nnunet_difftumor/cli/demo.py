"""The whole way on a CPU, in minutes: synthesize tumors, prepare, train a small network, predict, evaluate.

Without --data on phantoms. With --data on your CT scans: a folder whose sub-folders hold ct.nii.gz and labels.nii.gz,
healthy ones and ones with tumors. If none has a tumor, one scan with an organ mask is enough: training is label-free
then, and the test cases are scans with synthetic tumors. Sub-folders whose label maps use other values than
--labels say so in a label_map.json, for instance {"liver": 5}. Other label values than these become background.

Every command is shown. The network is small and trained for minutes: it shows that everything works, not how well.
Exit status: 0 if training raised the Dice of the foreground and of the tumors, 1 if not or if a command failed, 2 if
the input was wrong.
"""

import argparse
import sys
from pathlib import Path

from nnunet_difftumor.cli import options
from nnunet_difftumor.cli.colour import ERROR, painted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_out(parser, "for everything (default: %(default)s)", dest="out", default=Path("demo_out"))
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="your CT scans (default: phantoms are made)")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=["liver=1", "liver_tumor=2"],
        metavar="NAME=VALUE[,VALUE]",
        help="organ and tumor, and the values that mean them in labels.nii.gz (default: liver=1 liver_tumor=2)",
    )
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--iterations-per-epoch", type=int, default=80, metavar="N", help="(default: %(default)s)")
    options.add_seed(parser, "of phantoms, tumors and network (default: %(default)s)", default=0)
    parser.add_argument(
        "--no-training",
        dest="training",
        action="store_false",
        help="stop after the pictures of synthetic tumors, in under two minutes; without it the same command resumes",
    )
    options.add_overwrite(parser, "start again (default: resume where it stopped)")


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.demonstration.commands import CommandFailedError
    from nnunet_difftumor.demonstration.demo import demo
    from nnunet_difftumor.demonstration.scores import not_raised

    try:
        manifest = demo(
            args.out,
            data=args.data,
            labels=args.labels,
            epochs=args.epochs,
            iterations_per_epoch=args.iterations_per_epoch,
            seed=args.seed,
            training=args.training,
            overwrite=args.overwrite,
        )
    except CommandFailedError as error:
        args.say(f"{painted('difftumor demo:', ERROR, sys.stdout)} {error}")
        return 2 if error.status == 2 else 1
    if not args.training:
        return 0
    failed = not_raised(manifest["scores"])
    if failed:
        dice = ", ".join(f"{name} ({before:.3f} to {after:.3f})" for name, (before, after) in failed.items())
        args.say(f"{painted('difftumor demo:', ERROR, sys.stdout)} FAILED, training did not raise the Dice of {dice}")
    return int(bool(failed))
