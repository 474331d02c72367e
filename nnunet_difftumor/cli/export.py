"""Make a trained model that predicts under plain nnU-Net, without nnunet-difftumor.

The copy is used as: nnUNetv2_predict_from_modelfolder -i IN -o OUT -m COPY
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model_folder", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION in nnU-Net's results"
    )
    options.add_out(parser, "new, or holding this export (default: MODEL_FOLDER_exported)")
    options.add_dry_run(parser)


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.prepared.recipes import RECIPES
    from nnunet_difftumor.trainers.export import export

    output = export(args.model_folder, args.output, dry_run=args.dry_run, report=args.say)
    if args.dry_run:
        return
    trainer = args.model_folder.resolve().name.split("__")[0]
    steps = [f" -step_size {recipe.tile_step:g}" for recipe in RECIPES.values() if recipe.trainer == trainer]
    words = f"-i IN -o OUT -m {output}{''.join(steps)}"
    print(f"exported to {output}\npredict: nnUNetv2_predict_from_modelfolder {words}")
