"""Turn CT scans and label maps into an nnU-Net raw dataset, checking every case.

Rejected cases are listed with their reasons, here and in the dataset's conversion_report.json. Nothing is overwritten
without --overwrite. The dataset appears when it is complete; after an interruption the same command resumes where it
stopped.
"""

import argparse
import importlib
import inspect

from nnunet_difftumor.cli import options
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
            options.add_input_folder(sub, "what to convert")
        options.add_dataset_id(sub, "of the dataset that is made, 1 to 999")
        sub.add_argument("--name", metavar="NAME", help="the Name in DatasetXXX_Name")
        options.add_overwrite(sub, "replace the dataset of this id and name")
        options.add_dry_run(sub)
        if "spacing_mm" in parameters:
            default = parameters["spacing_mm"].default
            said = (
                f" (default: {' '.join(f'{step:g}' for step in default)})"
                if default
                else " of scans whose header was never set (as LiTS 28 to 47); without it they are rejected"
            )
            options.add_spacing(sub, said, default=default)
        if "processes" in parameters:
            options.add_processes(sub, "for copying (default: %(default)s)", default=parameters["processes"].default)
        if "seed" in parameters:
            options.add_seed(
                sub, "the same seed gives the same dataset (default: %(default)s)", default=parameters["seed"].default
            )
        if "anonymous" in parameters:
            options.add_anonymous(
                sub,
                "name cases after the content of their CTs, and leave names of files, and text in headers, out of the "
                "dataset, its report and messages",
            )
        module.add_arguments(sub)


def run(args: argparse.Namespace) -> None:
    from nnunet_difftumor.dataset_conversion.convert import convert

    convert(**{name: value for name, value in vars(args).items() if name != "say"})


def _converter(name: str):
    return importlib.import_module(f"nnunet_difftumor.dataset_conversion.{name}")
