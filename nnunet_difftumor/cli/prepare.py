"""Plan, preprocess and set up an nnU-Net raw dataset for training with synthetic tumors.

Runs nnU-Net's own fingerprint, planner and preprocessing into plans nnUNetPlansDiffTumor (HU window -175 to 250, to be
used by baselines too), measures the organs, writes folds and roles (splits_final.json) and the settings
(difftumor.json, made to be edited). Run it again after an interruption: what is done is kept. With --healthy, the cases
of other raw datasets become bases for synthetic tumors, preprocessed with this dataset's plans.
"""

import argparse

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.prepared.recipes import RECIPES

    options.add_dataset_id(parser)
    parser.add_argument(
        "--planner",
        metavar="NAME",
        help="any nnU-Net planner (default: nnUNetPlannerResEncM; that of plans that are there is kept)",
    )
    options.add_spacing(
        parser, " of what is preprocessed (default: the planner's; that of plans that are there is kept)"
    )
    options.add_patch_size(parser, " (default: as with --spacing)")
    options.add_organ_pairs(
        parser,
        "NAME=ORGAN:TUMOR[:AVOID]",
        "label values of a pair, for example liver=1:2; several allowed (default: found in dataset.json)",
    )
    options.add_tumor_preset(parser)
    parser.add_argument(
        "--recipe",
        choices=list(RECIPES),
        help="a paper's voxel size, patch, window, batch, preset and shares, for the trainer that is then named "
        "(default: nnU-Net's own planning)",
    )
    options.add_healthy(parser, "which become further bases for synthetic tumors")
    options.add_processes(parser, "for preprocessing (default: nnUNet_def_n_proc, 8 unless set, at most one per core)")
    options.add_overwrite(parser, "start again; replaces plans, folds and settings")
    options.add_dry_run(parser)


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
        dry_run=args.dry_run,
        report=args.say,
    )
