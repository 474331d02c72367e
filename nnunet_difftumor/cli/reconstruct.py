"""Encode and decode a CT scan: whether an autoencoder's weights fit it, and what is likely wrong if they do not.

The output folder gets reconstruction.png (scan, reconstruction, difference), reconstruction.json (PSNR, SSIM and mean
absolute error in HU, in the window of the weights; their hash) and report.html, which has both, and slices to scroll
through. The scan is shown to the autoencoder as synthesis
shows it: in patches of the size that it was trained on (96 mm), with its axes and voxel size. Where PSNR is below 20
dB, the usual mistakes are tried.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from nnunet_difftumor.synthesis.renderers import DEVICES

    parser.add_argument(
        "ct", type=Path, help="CT scan in HU: .nii.gz, .nii, .mha, .nrrd, or a folder with a DICOM series"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="for the results")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        help="with autoencoder.safetensors (default: difftumor_weights in nnUNet_results)",
    )
    parser.add_argument(
        "--organ-mask", type=Path, metavar="FILE", help="label map on the same grid; only its organ's box is looked at"
    )
    parser.add_argument(
        "--organ-label", type=int, nargs="+", default=[], help="label value(s) of the organ (default: all)"
    )
    parser.add_argument(
        "--spacing",
        dest="spacing_mm",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="voxel size in mm of a scan whose header was never set",
    )
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="leave names of files, and text in the scan's header, out of what is written",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="(default: %(default)s)")
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
        device=args.device,
        save_ct=args.save_ct,
        spacing_mm=args.spacing_mm,
        anonymous=args.anonymous,
    )
    size = " x ".join(map(str, record["patch_voxels"]))
    print(f"{args.output}: {summary(record)}; {record['patches']} patches of {size}")
    for line in [*(f"NOTE: {note}" for note in record["notes"]), *record["likely_wrong"]]:
        args.say(line)
