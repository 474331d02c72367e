"""Turn CT scans and label maps into an nnU-Net raw dataset, checking every case.

Rejected cases are listed with their reasons, here and in the dataset's conversion_report.json. Nothing is overwritten
without --overwrite. The dataset appears when it is complete; after an interruption the same command resumes where it
stopped.
"""

import argparse
import importlib
import inspect

from nnunet_difftumor.dataset_conversion import CONVERTERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    converters = parser.add_subparsers(dest="converter", required=True, metavar="NAME")
    for name, line in CONVERTERS.items():
        module = _converter(name)
        sub = converters.add_parser(
            name, help=line, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parameters = inspect.signature(module.convert).parameters
        if "input_folder" in parameters:
            sub.add_argument("-i", dest="input_folder", required=True, metavar="FOLDER", help="what to convert")
        sub.add_argument("-d", dest="dataset_id", type=int, required=True, metavar="ID", help="dataset id, 1 to 999")
        sub.add_argument("--name", help="the Name in DatasetXXX_Name")
        sub.add_argument("--overwrite", action="store_true", help="replace the dataset of this id and name")
        if {"spacing_mm", "input_folder"} <= set(parameters):
            sub.add_argument(
                "--spacing",
                dest="spacing_mm",
                type=float,
                nargs=3,
                metavar=("Z", "Y", "X"),
                help="voxel size of scans whose header was never set (as LiTS 28 to 47); without it they are rejected",
            )
        if "anonymous" in parameters:
            sub.add_argument(
                "--anonymous",
                action="store_true",
                help="name cases after the content of their CTs, and leave names of files, and text in headers, out of "
                "the dataset, its report and messages",
            )
        module.add_arguments(sub)


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.dataset_conversion.convert import convert

    convert(**{name: value for name, value in vars(args).items() if name != "say"})


def _converter(name: str):
    return importlib.import_module(f"nnunet_difftumor.dataset_conversion.{name}")
