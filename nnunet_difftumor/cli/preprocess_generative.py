"""Write the cases of an nnU-Net raw dataset, or scans without labels, as volumes to train generative models on.

Every case becomes a crop around its organs, at 1 mm, along the networks' axes, with labels and a list of its lesions,
in the folder `generative` of the preprocessed dataset. Scans without labels, from which autoencoders learn too, become
crops around the body. Run it again after an interruption, or when cases were added: what is done is kept.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--dataset-id", type=int, required=True, help="of a dataset in nnUNet_raw; with --unlabelled any number"
    )
    parser.add_argument(
        "--unlabelled",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of scans without labels to be added, image files or DICOM, in them or below; a dataset in "
        "nnUNet_raw without organ labels is taken so, too",
    )
    parser.add_argument(
        "--organ",
        action="append",
        default=[],
        metavar="NAME=ORGAN:TUMOR[:AVOID]",
        help="label values of a pair, for example liver=1:2; several allowed (default: those of difftumor.json, or "
        "else found in dataset.json)",
    )
    parser.add_argument(
        "--healthy",
        type=int,
        nargs="+",
        default=[],
        metavar="ID",
        help="raw datasets of healthy cases with the same labels, to be added; those of `prepare --healthy` always are",
    )
    parser.add_argument(
        "--margin-mm", type=float, default=48.0, metavar="MM", help="kept around the organs (default: %(default)s)"
    )
    parser.add_argument("-np", "--processes", type=int, help="default: one per core, at most 4")


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
