"""One page of the results of evaluations: figures, plots, what may be concluded, slices of hits and errors.

RESULT are JSON files of `difftumor evaluate -o FILE.json`; several must be of the same cases. The page is one file that
any browser opens without a network, and prints.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="JSON file of `difftumor evaluate`")
    options.add_out(parser, "HTML file for the page", metavar="FILE", required=True)
    parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help="of the methods (default: from the files' names)"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="of the CTs (CASE_0000.nii.gz), for slices of tumors that were found and missed, and of false positives",
    )
    parser.add_argument(
        "--each",
        type=options.positive,
        default=4,
        metavar="N",
        help="lesions of each kind and method that are shown (default: %(default)s)",
    )
    options.add_seed(parser, "of the intervals of differences (default: %(default)s)", default=0)


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.reporting.report import report

    path = report(args.results, args.output, names=args.names, images=args.images, each=args.each, seed=args.seed)
    print(f"written: {path}")
