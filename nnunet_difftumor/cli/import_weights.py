"""Turn the published DiffTumor weights into safetensors and JSON, executing nothing from the files.

FILES are AutoencoderModel.ckpt and any of {liver,pancreas,kidney}_{early,noearly}.pt; or .safetensors of others who
trained with this package, with their JSON beside them, which are checked and copied. The autoencoder is needed once;
diffusion models can be added to the same folder later. The weights keep their owners' licence.
"""

import argparse
from pathlib import Path

from nnunet_difftumor.cli import options
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILES", help=".ckpt, .pt and .safetensors files")
    options.add_out(
        parser,
        "for autoencoder.safetensors, liver_early.safetensors, ... (default: difftumor_weights in nnUNet_results)",
    )
    parser.add_argument(
        "--organ",
        metavar="NAME",
        help=f"of a diffusion model whose file name does not say one of {', '.join(PUBLISHED_ORGANS)}; any name",
    )
    options.add_stage(parser, "of a diffusion model (default: early up to 10 steps)")


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.generative.importing.published_weights import import_weights

    for imported in import_weights(args.files, args.output, organ=args.organ, stage=args.stage):
        print("\n".join(imported.lines()))
