"""Draw what the trainer will see of a prepared dataset, before any training.

A picture per organ has a row per size, with several draws in several cases, each before and after; mix.png shows the
mix of the training: with the seed of difftumor.json the very first synthetic samples of fold 0, uncropped and without
augmentation. report.html has all of it on one page, preview.json the specs. Run it again after editing
difftumor.json.
"""

import argparse

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_dataset_id(parser, "of a dataset that was prepared")
    options.add_out(parser, "for the pictures (default: in the preprocessed dataset)")
    options.add_configuration(parser, "whose cases are shown (default: %(default)s)", default="3d_fullres")
    options.add_seed(parser, "of everything random (default: the one in difftumor.json)")
    options.add_sweep(parser, "through the slices of one case with tumors of every size")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.pictures.preview import preview

    preview(
        args.dataset_id,
        output=args.output,
        configuration=args.configuration,
        seed=args.seed,
        sweep=args.sweep,
    )
