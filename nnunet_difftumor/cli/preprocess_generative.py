"""Write the cases of an nnU-Net raw dataset, or scans without labels, as volumes to train generative models on.

Every case becomes a crop around its organs, at 1 mm, along the networks' axes, with labels and a list of its lesions,
in the folder `generative` of the preprocessed dataset. Scans without labels, from which autoencoders learn too, become
crops around the body. Run it again after an interruption, or when cases were added: what is done is kept.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_dataset_id(parser, "of a dataset in nnUNet_raw; with --unlabelled any number")
    parser.add_argument(
        "--unlabelled",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of scans without labels to be added, image files or DICOM, in them or below; a dataset in "
        "nnUNet_raw without organ labels is taken so, too",
    )
    options.add_organ_pairs(
        parser,
        "NAME=ORGAN:TUMOR[:AVOID]",
        "label values of a pair, for example liver=1:2; several allowed (default: those of difftumor.json, or else "
        "found in dataset.json)",
    )
    options.add_healthy(parser, "to be added; those of `prepare --healthy` always are")
    parser.add_argument(
        "--margin-mm", type=float, default=48.0, metavar="MM", help="kept around the organs (default: %(default)s)"
    )
    options.add_processes(parser, "that make volumes (default: one per core, at most 4)")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.preparation.generative.volumes import preprocess_generative

    preprocess_generative(
        args.dataset_id,
        healthy=args.healthy,
        unlabelled=args.unlabelled,
        organ=args.organ,
        margin_mm=args.margin_mm,
        processes=args.processes,
    )
