"""Make a trained model that predicts under plain nnU-Net, without nnunet-difftumor.

The copy is used as: nnUNetv2_predict_from_modelfolder -i IN -o OUT -m COPY
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model_folder", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION in nnU-Net's results"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="new, or holding this export (default: MODEL_FOLDER_exported)",
    )


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.prepared.recipes import RECIPES
    from nnunet_difftumor.trainers.export import export

    output = export(args.model_folder, args.output)
    trainer = args.model_folder.resolve().name.split("__")[0]
    steps = [f" -step_size {recipe.tile_step:g}" for recipe in RECIPES.values() if recipe.trainer == trainer]
    options = f"-i IN -o OUT -m {output}{''.join(steps)}"
    print(f"exported to {output}\npredict: nnUNetv2_predict_from_modelfolder {options}")
