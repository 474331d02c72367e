"""Take predicted tumors that lie outside their organ out of label maps, as DiffTumor does (supplement E.2).

PRED is a folder of label maps, as nnU-Net predicts them (.mha and .nrrd become .nii.gz). A connected component of
predicted tumor (26 neighbours) is kept whole if at least a share of its voxels (--min-overlap) lies in the organ, whose
holes are filled, or within --tolerance-mm of it; else its voxels become background. Nothing else is changed. Without
--organ-masks the organ is the one in the predictions themselves; tumors inside it are its holes. Run it again after an
interruption: cases that are done are kept.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.evaluation.postprocessing.organ_rule import MIN_OVERLAP, TOLERANCE_MM

    parser.add_argument("prediction", type=Path, metavar="PRED", help="folder of the predicted label maps")
    options.add_organ_masks(parser, "label maps of the same names that hold the organs (default: the organs in PRED)")
    options.add_organ_pairs(
        parser,
        "NAME=ORGAN:TUMOR",
        "values of the organ, in --organ-masks if given, and of its tumors in PRED, for example liver=5:2 or "
        "kidney=2,3:2; several allowed (default: found in dataset.json)",
    )
    options.add_organ_label(parser, "the only organ, instead of --organ (default with --organ-masks: all but 0)")
    options.add_tumor_label(
        parser, "its tumors, which are one mask, with --organ-label (default: the tumor in dataset.json)"
    )
    options.add_dataset_json(parser, "take labels from here")
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
    options.add_out(parser, "for the label maps and postprocessing.json, which says what was removed", required=True)
    options.add_overwrite(parser, "make all cases again, also with other settings")


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
