"""Look for what is wrong with a dataset although nothing fails: data, prepared data, banks and weights, case by case.

Finds intensities that are no HU, files that programs read differently, labels that are mirrored, shifted or of another
patient, organs that are empty or specks, tumors far from their organ, one scan under two names (also cropped or
resampled), raw data that changed after `difftumor prepare`, damaged or constant preprocessed cases, and banks and
weights that do not fit. Every finding names the case and what to do. What was seen is remembered as long as the files
stay the same. Ends with status 2 if anything is or may be wrong.
"""

import argparse

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_dataset_id(parser)
    parser.add_argument(
        "--against",
        type=options.positive,
        nargs="+",
        default=[],
        metavar="ID",
        help="raw datasets, such as test sets, none of whose scans may be in this one",
    )
    options.add_processes(parser, "that look at cases (default: one per core, at most 8)")
    options.add_out(parser, "write all findings to this JSON file", metavar="FILE")


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.checks.finding import NOTE
    from nnunet_difftumor.preparation.check import check

    findings = check(
        args.dataset_id, against=args.against, processes=args.processes, output=args.output, report=args.say
    )
    return 2 if any(finding.severity != NOTE for finding in findings) else 0
