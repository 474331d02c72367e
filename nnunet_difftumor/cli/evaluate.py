"""Compare predicted with true tumors, case by case and over all cases, and print a table.

GT and PRED are folders of label maps (.nii.gz, .nii, .mha, .nrrd) with the same names. Measured are DSC, NSD, the
tumors detected (at least one voxel predicted) by size, false positives per scan, and patient-level sensitivity and
specificity, each with a 95 % bootstrap interval over cases. DSC and NSD are means over the cases that have a tumor.
Voxels of nnU-Net's label ignore in GT, if dataset.json has one, are left out of every figure.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ground_truth", type=Path, metavar="GT", help="folder of the true label maps")
    parser.add_argument("prediction", type=Path, metavar="PRED", help="folder of the predicted label maps")
    which = parser.add_mutually_exclusive_group()
    options.add_tumor_label(which, "the tumors; each by itself", default=None)
    options.add_dataset_json(which, "take the labels named tumor, cancer or lesion from here")
    options.add_organ_masks(parser, "drop predictions outside these masks, which must include the organ's tumors")
    options.add_organ_label(parser, "the organ in --organ-masks (default: all but 0); without --organ-masks: in GT")
    parser.add_argument("--predicted-only", action="store_true", help="GT may hold cases that were not predicted")
    parser.add_argument(
        "--nsd-tolerance-mm", type=float, default=2.0, metavar="MM", help="tolerance of the NSD (default: %(default)s)"
    )
    options.add_seed(parser, "of the bootstrap (default: %(default)s)", default=0)
    options.add_out(parser, "write all figures to this JSON file", metavar="FILE")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.evaluate import evaluate
    from nnunet_difftumor.evaluation.tables import table

    result = evaluate(
        args.ground_truth,
        args.prediction,
        tumor_label=args.tumor_label,
        dataset_json=args.dataset_json,
        organ_masks=args.organ_masks,
        organ_label=args.organ_label,
        predicted_only=args.predicted_only,
        nsd_tolerance_mm=args.nsd_tolerance_mm,
        seed=args.seed,
        output=args.output,
        report=args.say,
    )
    print(table(result))
    if args.output:
        print(f"\nall figures, per case too: {args.output}")
