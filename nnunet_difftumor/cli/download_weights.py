"""Get the published DiffTumor weights from Hugging Face, ready for synthesis and training.

The autoencoder and the diffusion models of an organ are fetched, compared with the hashes that this version knows, and
turned into safetensors and JSON as `import-weights` does it: nothing in the files is executed. After an interruption
the same command resumes where it stopped, and what is there already is not fetched again. The weights keep their
owners' licence, which has to be agreed to.
"""

import argparse

from nnunet_difftumor.cli import options
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organ", required=True, metavar="NAME", help=f"one of {', '.join(PUBLISHED_ORGANS)}")
    options.add_stage(parser, "early for tiny and small tumors, late for medium and large ones (default: both)")
    options.add_out(
        parser,
        "for autoencoder.safetensors, liver_early.safetensors, ... (default: difftumor_weights in nnUNet_results)",
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="of a mirror of Hugging Face (default: what HF_ENDPOINT names, or https://huggingface.co)",
    )
    parser.add_argument(
        "--accept-licence", action="store_true", help="agree to the licence of the weights; without it, it is named"
    )


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.generative.importing.download import download_weights

    download_weights(
        args.organ,
        args.output,
        stage=args.stage,
        endpoint=args.endpoint,
        accept_licence=args.accept_licence,
        report=args.say,
    )
