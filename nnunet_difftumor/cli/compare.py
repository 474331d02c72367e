"""Compare methods on the same cases: paired differences, tests, and what may be concluded.

RESULT are JSON files of `difftumor evaluate -o FILE.json`, of the same ground truth with the same options; each is
compared with the first. Printed are both values, the difference with its 95 % interval over patients, the p-value
after Holm, and a permutation test as a check.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="JSON file of `difftumor evaluate`")
    parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help="of the methods (default: from the files' names)"
    )
    options.add_seed(parser, "of bootstrap and permutations (default: %(default)s)", default=0)
    options.add_out(parser, "write all figures to this JSON file", metavar="FILE")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.comparing.compare import compare
    from nnunet_difftumor.evaluation.comparing.text import table

    print(table(compare(args.results, names=args.names, seed=args.seed, output=args.output)))
    if args.output:
        print(f"\nwritten: {args.output}")
