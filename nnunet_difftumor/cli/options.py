"""The options that several verbs have: one name, kind of value and wording for the same thing everywhere.

What differs from verb to verb is given as `what`, the words of --help. Short names are nnU-Net's own where it has the
thing, too: -d, -i, -o, -np, -c.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# argparse's parser, or a group of options that exclude one another.
Options = argparse._ActionsContainer
_AXES = ("Z", "Y", "X")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def add_dataset_id(options: Options, what: str = "of a dataset in nnUNet_raw", *, required: bool = True) -> None:
    options.add_argument("-d", "--dataset-id", type=positive, required=required, metavar="ID", help=what)


def add_input_folder(options: Options, what: str) -> None:
    options.add_argument("-i", "--input", dest="input_folder", type=Path, required=True, metavar="FOLDER", help=what)


def add_out(
    options: Options,
    what: str,
    *,
    metavar: str = "FOLDER",
    required: bool = False,
    dest: str = "output",
    default: Path | None = None,
) -> None:
    """What is written; a `metavar` FILE for a single file."""
    options.add_argument(
        "-o", "--out", dest=dest, type=Path, required=required, default=default, metavar=metavar, help=what
    )


def add_processes(options: Options, what: str, *, default: int | None = None) -> None:
    options.add_argument("-np", "--processes", type=positive, default=default, metavar="N", help=what)


def add_configuration(options: Options, what: str, *, default: str | None = None) -> None:
    options.add_argument("-c", "--configuration", default=default, metavar="NAME", help=what)


def add_spacing(options: Options, what: str, *, default: Sequence[float] | None = None) -> None:
    options.add_argument(
        "--spacing",
        dest="spacing_mm",
        type=float,
        nargs=3,
        default=default,
        metavar=_AXES,
        help=f"voxel size in mm{what}",
    )


def add_patch_size(options: Options, what: str) -> None:
    options.add_argument("--patch-size", type=int, nargs=3, metavar=_AXES, help=f"in voxels{what}")


def add_organ_mask(options: Options, what: str) -> None:
    options.add_argument("--organ-mask", type=Path, metavar="FILE", help=f"label map on the same grid{what}")


def add_organ_masks(options: Options, what: str) -> None:
    options.add_argument("--organ-masks", type=Path, metavar="FOLDER", help=what)


def add_organ_label(options: Options, what: str, *, default: Sequence[int] | None = ()) -> None:
    _add_values(options, "--organ-label", what, default)


def add_tumor_label(options: Options, what: str, *, default: Sequence[int] | None = ()) -> None:
    """Value(s) of tumors in label maps that are there."""
    _add_values(options, "--tumor-label", what, default)


def add_dataset_json(options: Options, what: str) -> None:
    options.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help=f"{what} (default: the one that nnU-Net put into PRED, or, for fold_X/validation, into the model's "
        "folder)",
    )


def add_organ_pairs(options: Options, form: str, what: str) -> None:
    options.add_argument("--organ", action="append", default=[], metavar=form, help=what)


def add_healthy(options: Options, what: str) -> None:
    options.add_argument(
        "--healthy",
        type=positive,
        nargs="+",
        default=[],
        metavar="ID",
        help=f"raw datasets of healthy cases with the same labels, {what}",
    )


def add_weights(options: Options, what: str) -> None:
    options.add_argument(
        "--weights", type=Path, metavar="FOLDER", help=f"{what} (default: difftumor_weights in nnUNet_results)"
    )


def add_stage(options: Options, what: str, *, required: bool = False) -> None:
    from nnunet_difftumor.generative.stages import STAGES

    options.add_argument("--stage", choices=STAGES, required=required, help=what)


def add_tumor_preset(options: Options) -> None:
    from nnunet_difftumor.synthesis.look.presets import PRESETS

    options.add_argument("--preset", choices=list(PRESETS), help="of the tumors (default: realistic)")


def add_device(options: Options, what: str = "", *, default: str | None = None, said: str | None = None) -> None:
    """`said`: the default in words, where none is set."""
    options.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default=default,
        help=f"{what}auto: cuda where there is a GPU (default: {said or default})",
    )


def add_seed(options: Options, what: str, *, default: int | None = None) -> None:
    options.add_argument("--seed", type=int, default=default, metavar="N", help=what)


def add_overwrite(options: Options, what: str) -> None:
    options.add_argument("--overwrite", action="store_true", help=what)


# No option of `synthesize` has a default: that one was given where it means nothing could not be told otherwise.


def add_anonymous(options: Options, what: str, *, has_default: bool = True) -> None:
    _add_switch(options, "--anonymous", what, has_default=has_default)


def add_sweep(options: Options, what: str, *, has_default: bool = True) -> None:
    _add_switch(options, "--sweep", f"also write sweep.gif, {what}", has_default=has_default)


def add_dry_run(options: Options, what: str = "", *, has_default: bool = True) -> None:
    said = f"{what}check what can be checked quickly, say what would be done, and write nothing"
    _add_switch(options, "--dry-run", said, has_default=has_default)


def chosen_device(device: str | None) -> str | None:
    """`auto` is cuda where there is a GPU, and else cpu."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"is {value}, expected at least {least}")
    return value


def _add_values(options: Options, name: str, what: str, default: Sequence[int] | None) -> None:
    default = None if default is None else list(default)
    options.add_argument(name, type=int, nargs="+", default=default, metavar="N", help=f"value(s) of {what}")


def _add_switch(options: Options, name: str, what: str, *, has_default: bool) -> None:
    kind: dict[str, Any] = {"action": "store_true"} if has_default else {"action": "store_const", "const": True}
    options.add_argument(name, help=what, **kind)
