"""Plan, preprocess and set up an nnU-Net raw dataset for training with synthetic tumors.

Runs nnU-Net's own fingerprint, planner and preprocessing into plans nnUNetPlansDiffTumor (HU window -175 to 250, to be
used by baselines too), measures the organs, writes folds and roles (splits_final.json) and the settings
(difftumor.json, made to be edited). Run it again after an interruption: what is done is kept. With --healthy, the cases
of other raw datasets become bases for synthetic tumors, preprocessed with this dataset's plans.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.prepared.recipes import RECIPES
    from nnunet_difftumor.synthesis.look.presets import PRESETS

    parser.add_argument("-d", "--dataset-id", type=int, required=True, help="of a dataset in nnUNet_raw")
    parser.add_argument(
        "--planner", help="any nnU-Net planner (default: nnUNetPlannerResEncM; that of plans that are there is kept)"
    )
    parser.add_argument(
        "--spacing",
        dest="spacing_mm",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="target spacing in mm (default: the planner's; that of plans that are there is kept)",
    )
    parser.add_argument(
        "--patch-size", type=int, nargs=3, metavar=("Z", "Y", "X"), help="in voxels (default: as with --spacing)"
    )
    parser.add_argument(
        "--organ",
        action="append",
        default=[],
        metavar="NAME=ORGAN:TUMOR[:AVOID]",
        help="label values of a pair, for example liver=1:2; several allowed (default: found in dataset.json)",
    )
    parser.add_argument("--preset", choices=list(PRESETS), help="of the tumors (default: realistic)")
    parser.add_argument(
        "--recipe",
        choices=list(RECIPES),
        help="a paper's voxel size, patch, window, batch, preset and shares, for the trainer that is then named "
        "(default: nnU-Net's own planning)",
    )
    parser.add_argument(
        "--healthy",
        type=int,
        nargs="+",
        default=[],
        metavar="ID",
        help="raw datasets of healthy cases with the same labels, which become further bases for synthetic tumors",
    )
    parser.add_argument(
        "-np",
        "--processes",
        type=int,
        help="for preprocessing (default: nnUNet_def_n_proc, 8 unless set, at most one per core)",
    )
    parser.add_argument("--overwrite", action="store_true", help="start again; replaces plans, folds and settings")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.preparation.prepare import prepare

    prepare(
        args.dataset_id,
        planner=args.planner,
        spacing_mm=args.spacing_mm,
        patch_size=args.patch_size,
        organ=args.organ,
        preset=args.preset,
        recipe=args.recipe,
        healthy=args.healthy,
        processes=args.processes,
        overwrite=args.overwrite,
    )
