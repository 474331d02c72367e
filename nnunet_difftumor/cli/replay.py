"""Make a training sample of a run again, as the network got it: NIfTI, picture, and the specs of its tumors.

Samples are numbered batch * batch size + position; those with synthetic tumors are listed in RUN/synthesis_log. Needs
the run's preprocessed dataset in nnUNet_preprocessed. Exit status 1 if the sample is not the logged one bit for bit.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run's fold in nnUNet_results")
    parser.add_argument("--sample", type=options.not_negative, required=True, metavar="N", help="number of the sample")
    parser.add_argument(
        "--rank",
        type=options.not_negative,
        default=0,
        metavar="N",
        help="of the process, in distributed training (default: 0)",
    )
    options.add_out(parser, "for the files (default: RUN/replay/SAMPLE)")


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.pictures.replay import replay

    output = args.output or args.run / "replay" / str(args.sample)
    sample = replay(args.run, args.sample, rank=args.rank, output=output)
    verdict = {
        True: "equal to the logged one, bit for bit",
        False: "NOT equal to the logged one: data, settings or versions have changed since the run",
        None: "not in the log (it has no synthetic tumors, or its epoch was not finished)",
    }[sample.reproduced]
    print(f"{output}: sample {args.sample} of case {sample.case}, {verdict}")
    return 1 if sample.reproduced is False else 0
