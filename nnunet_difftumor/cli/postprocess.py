"""Take predicted tumors that lie outside their organ out of label maps, as DiffTumor does (supplement E.2).

PRED is a folder of label maps, as nnU-Net predicts them (.mha and .nrrd become .nii.gz). A connected component of
predicted tumor (26 neighbours) is kept whole if at least a share of its voxels (--min-overlap) lies in the organ, whose
holes are filled, or within --tolerance-mm of it; else its voxels become background. Nothing else is changed. Without
--organ-masks the organ is the one in the predictions themselves; tumors inside it are its holes. Run it again after an
interruption: cases that are done are kept.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.evaluation.postprocessing.organ_rule import MIN_OVERLAP, TOLERANCE_MM

    parser.add_argument("prediction", type=Path, metavar="PRED", help="folder of the predicted label maps")
    parser.add_argument(
        "--organ-masks",
        type=Path,
        metavar="FOLDER",
        help="label maps of the same names that hold the organs (default: the organs in PRED)",
    )
    parser.add_argument(
        "--organ",
        action="append",
        default=[],
        metavar="NAME=ORGAN:TUMOR",
        help="values of the organ, in --organ-masks if given, and of its tumors in PRED, for example liver=5:2 or "
        "kidney=2,3:2; several allowed (default: found in dataset.json)",
    )
    parser.add_argument(
        "--organ-label",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="instead of --organ: value(s) of the only organ (default with --organ-masks: all but 0)",
    )
    parser.add_argument(
        "--tumor-label",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="with --organ-label: value(s) of its tumors, which are one mask (default: the tumor in dataset.json)",
    )
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="take labels from here (default: the one that nnU-Net put into PRED, or, for fold_X/validation, into the "
        "model's folder)",
    )
    parser.add_argument(
        "--min-overlap",
        type=float,
        default=MIN_OVERLAP,
        metavar="SHARE",
        help="of a component's voxels that must lie in or near the organ, above 0 and up to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--tolerance-mm",
        type=float,
        default=TOLERANCE_MM,
        metavar="MM",
        help="what is not farther from the organ is near it (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="for the label maps and postprocessing.json, which says what was removed",
    )
    parser.add_argument("--overwrite", action="store_true", help="make all cases again, also with other settings")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.postprocessing.postprocess import REPORT, postprocess

    postprocess(
        args.prediction,
        args.output,
        organ_masks=args.organ_masks,
        organ=args.organ,
        organ_label=args.organ_label,
        tumor_label=args.tumor_label,
        dataset_json=args.dataset_json,
        min_overlap=args.min_overlap,
        tolerance_mm=args.tolerance_mm,
        overwrite=args.overwrite,
        report=args.say,
    )
    print(f"what was removed: {args.output / REPORT}")
