"""Compare predicted with true tumors, case by case and over all cases, and print a table.

GT and PRED are folders of label maps (.nii.gz, .nii, .mha, .nrrd) with the same names. Measured are DSC, NSD, HD95,
volume error; lesion by lesion sensitivity by size, precision, F1, DSC and false positives per scan; and patient-level
sensitivity and specificity; with --npz also FROC, average precision and AUC. Each has a 95 % bootstrap interval over
patients. Voxels of nnU-Net's label ignore in GT, if dataset.json has one, are left out of every figure. --challenge
adds the scores of a public challenge, for a table beside its leaderboard.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.evaluation.case_files import MISSING
    from nnunet_difftumor.evaluation.challenges.catalogue import NAMES

    parser.add_argument("ground_truth", type=Path, metavar="GT", help="folder of the true label maps")
    parser.add_argument("prediction", type=Path, metavar="PRED", help="folder of the predicted label maps")
    add_measures(parser)
    parser.add_argument(
        "--missing",
        choices=MISSING,
        default="refuse",
        help="what becomes of GT without a prediction: an error, left out, or counted as a prediction without tumors "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--case-table",
        type=Path,
        metavar="CSV",
        help="table with a column case, perhaps patient (intervals are over patients), and columns of groups such as "
        "sex, age, scanner, whose values get figures of their own",
    )
    parser.add_argument(
        "--challenge",
        choices=NAMES,
        help="also print the scores of this challenge, as its own published code computes them, of the label maps as "
        "they are; -o FILE.json has them for every case",
    )
    parser.add_argument(
        "--challenge-tolerance-mm",
        type=float,
        metavar="MM",
        help="tolerance of the challenge's NSD; for tasks of the decathlon (msd-...), which need it",
    )
    parser.add_argument(
        "-o",
        "--out",
        dest="outputs",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the result, by suffix: .json everything, .csv a row per case, .md and .tex tables; several allowed",
    )


def add_measures(parser: argparse.ArgumentParser) -> None:
    """What is evaluated, and how: also of `crossval`."""
    from nnunet_difftumor.evaluation.measures.matching import RULES

    which = parser.add_mutually_exclusive_group()
    options.add_tumor_label(which, "the tumors; each by itself", default=None)
    options.add_dataset_json(which, "take the labels named tumor, cancer or lesion from here")
    options.add_organ_masks(parser, "drop predictions outside these masks, which must include the organ's tumors")
    options.add_organ_label(parser, "the organ in --organ-masks (default: all but 0); without --organ-masks: in GT")
    parser.add_argument(
        "--match",
        choices=list(RULES),
        default="any-overlap",
        help="when a predicted lesion counts for a true one (default: %(default)s)",
    )
    parser.add_argument(
        "--min-iou",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="least intersection over union for --match iou and one-to-one (default: any overlap)",
    )
    parser.add_argument(
        "--nsd-tolerance-mm", type=float, default=2.0, metavar="MM", help="tolerance of the NSD (default: %(default)s)"
    )
    parser.add_argument(
        "--npz",
        dest="probabilities",
        action="store_true",
        help="also read CASE.npz beside the predictions (nnUNetv2_predict --save_probabilities)",
    )
    options.add_seed(parser, "of the bootstrap (default: %(default)s)", default=0)
    options.add_processes(parser, "that measure cases (default: one per core and 8 cases, at most 8)")


def measures(args: argparse.Namespace) -> dict:
    """The arguments of `add_measures`, for the library."""
    return {
        "tumor_label": args.tumor_label,
        "dataset_json": args.dataset_json,
        "organ_masks": args.organ_masks,
        "organ_label": args.organ_label,
        "match": args.match,
        "min_iou": args.min_iou,
        "nsd_tolerance_mm": args.nsd_tolerance_mm,
        "probabilities": args.probabilities,
        "seed": args.seed,
        "processes": args.processes,
    }


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.challenges.text import challenge_table
    from nnunet_difftumor.evaluation.evaluate import evaluate
    from nnunet_difftumor.evaluation.results.text import table

    result = evaluate(
        args.ground_truth,
        args.prediction,
        **measures(args),
        missing=args.missing,
        case_table=args.case_table,
        challenge=args.challenge,
        challenge_tolerance_mm=args.challenge_tolerance_mm,
        outputs=args.outputs,
        report=args.say,
    )
    print(table(result))
    if args.challenge is not None:
        print(f"\n{challenge_table(result['challenge'])}")
    if args.outputs:
        print(f"\nwritten: {', '.join(map(str, args.outputs))}")
