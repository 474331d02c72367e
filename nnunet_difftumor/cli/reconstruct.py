"""Encode and decode a CT scan: whether an autoencoder's weights fit it, and what is likely wrong if they do not.

The output folder gets reconstruction.png (scan, reconstruction, difference), reconstruction.json (PSNR, SSIM and mean
absolute error in HU, in the window of the weights; their hash) and report.html, which has both, and slices to scroll
through. The scan is shown to the autoencoder as synthesis
shows it: in patches of the size that it was trained on (96 mm), with its axes and voxel size. Where PSNR is below 20
dB, the usual mistakes are tried.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ct", type=Path, metavar="CT", help="scan in HU: .nii.gz, .nii, .mha, .nrrd, or a folder with a DICOM series"
    )
    options.add_out(parser, "for the results", required=True)
    options.add_weights(parser, "with autoencoder.safetensors")
    options.add_organ_mask(parser, "; only its organ's box is looked at")
    options.add_organ_label(parser, "the organ in the mask (default: all)")
    options.add_spacing(parser, " of a scan whose header was never set")
    options.add_anonymous(parser, "leave names of files, and text in the scan's header, out of what is written")
    options.add_device(parser, default="cpu")
    parser.add_argument(
        "--save-ct", action="store_true", help="also write reconstruction.nii.gz, on the grid of the scan"
    )


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.evaluation.reconstruction.reconstruct import reconstruct, summary

    record = reconstruct(
        args.ct,
        args.output,
        weights=args.weights,
        organ_mask=args.organ_mask,
        organ_label=args.organ_label,
        device=options.chosen_device(args.device),
        save_ct=args.save_ct,
        spacing_mm=args.spacing_mm,
        anonymous=args.anonymous,
    )
    size = " x ".join(map(str, record["patch_voxels"]))
    print(f"{args.output}: {summary(record)}; {record['patches']} patches of {size}")
    for line in [*(f"NOTE: {note}" for note in record["notes"]), *record["likely_wrong"]]:
        args.say(line)
