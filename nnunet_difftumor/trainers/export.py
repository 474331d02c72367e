"""Makes a trained model independent of this package: nnU-Net predicts with it as with one of the trainer's own."""

import filecmp
import os
import pickle
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_folder, free_bytes, in_words_of_bytes, only_writer
from nnunet_difftumor.trainers import LABEL_FREE_ON, ON, TRAINERS

STOCK_TRAINER = "nnUNetTrainer"
REQUIRED_FILES = ("plans.json", "dataset.json")


def export(
    model_folder: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    dry_run: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Copies a trained model and names the trainer without synthetic tumors in its checkpoints.

    The trainers of this package change the training only, so the networks are nnU-Net's, or those of the trainer that
    synthetic tumors were put into (`nnUNetTrainerDiffTumor_on_NAME`), and the copy predicts the same. Copied are the
    JSON files of the model and, of every fold, the checkpoints, progress.png and the summary of the validation (what
    `nnUNetv2_export_model_to_zip` asks for). The checkpoints keep the trainer's name as `original_trainer_name`.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION in nnU-Net's results.
        output: must not exist, or hold this export already; default: beside the model, with "_exported" behind its
            name.
        dry_run: only say what would be copied; nothing is written.
        report: gets a line if predicting needs more than nnU-Net.

    Returns:
        The output folder, which appears whole or not at all.

    Raises:
        InputError: this is no model folder, a file of it is a link or a pipe, a checkpoint is broken or of a foreign
            trainer, the output exists and is not what would be written, or the disk has not enough room.
    """
    model = Path(model_folder).resolve()
    output = Path(output) if output is not None else model.with_name(f"{model.name}_exported")
    if missing := [name for name in REQUIRED_FILES if not (model / name).is_file()]:
        raise InputError(
            f"{model}: expected a model folder of nnU-Net (TRAINER__PLANS__CONFIGURATION), but there is no {missing[0]}"
        )
    checkpoints = sorted(model.glob("fold_*/checkpoint_*.pth"))
    if not checkpoints:
        raise InputError(f"{model}: no fold_*/checkpoint_*.pth; train the model first")
    small = list(_small_files(model))
    for path in (*small, *checkpoints):
        _check_regular(path)
    with nullcontext() if dry_run else only_writer(output):
        if output.exists():
            if not _is_export(output, model, small=small, checkpoints=checkpoints):
                raise InputError(f"{output}: exists already; remove it or name another folder")
            names = {load_checkpoint(output / path.relative_to(model))["trainer_name"] for path in checkpoints}
            if dry_run:
                report(f"{output}: holds this export; nothing would be done")
            _say_what_predicting_needs(names, report)
            return output
        _check_room([*small, *checkpoints], output)
        if dry_run:
            names = {_exported(path)["trainer_name"] for path in checkpoints}
            for path in (*small, *checkpoints):
                report(f"{path.relative_to(model)}: {in_words_of_bytes(path.stat().st_size)}")
            _say_what_predicting_needs(names, report)
            size, free = in_words_of_bytes(_bytes([*small, *checkpoints])), in_words_of_bytes(free_bytes(output))
            files = len(small) + len(checkpoints)
            report(f"{output} would get these {files} files, {size}; {free} are free. Dry run: nothing was written")
            return output
        names = set()
        try:
            with atomic_folder(output) as temporary:
                for path in small:
                    target = temporary / path.relative_to(model)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
                for path in checkpoints:
                    target = temporary / path.relative_to(model)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    names.add(_export_checkpoint(path, target))
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise InputError(f"{output}: cannot be written ({error}); nothing was left there") from error
    _say_what_predicting_needs(names, report)
    return output


def _bytes(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _check_room(files: Sequence[Path], output: Path) -> None:
    """Refuses a copy that the disk cannot hold; what is written is as large as what is read.

    Raises:
        InputError: saying how much is needed and free.
    """
    needed, free = _bytes(files), free_bytes(output)
    if needed > free:
        raise InputError(
            f"{output}: needs {in_words_of_bytes(needed)}, but {in_words_of_bytes(free)} are free there; free disk "
            "space, or name another folder"
        )


def _say_what_predicting_needs(names: set[str], report: Callable[[str], None]) -> None:
    for name in sorted(names - {STOCK_TRAINER}):
        if (home := _home_beside_nnunet(name)) is not None:
            report(f"predicting needs the trainer {name}, which is in {home}, beside nnU-Net")


def _home_beside_nnunet(name: str) -> str | None:
    """What has a trainer that nnU-Net itself does not have."""
    from nnunet_difftumor.trainers.composed import find_base

    module = find_base(name).__module__
    package = module.split(".")[0]
    if package == "nnunetv2":
        return None
    if distributions := metadata.packages_distributions().get(package):
        return f"the package {distributions[0]}"
    loaded = sys.modules.get(module)
    return f"the module {module}" + (f" ({loaded.__file__})" if loaded is not None else "")


def _is_export(folder: Path, model: Path, *, small: Sequence[Path], checkpoints: Sequence[Path]) -> bool:
    """Whether a folder holds what would be written, and nothing else."""
    wanted = {path.relative_to(model) for path in (*small, *checkpoints)}
    if {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()} != wanted:
        return False
    return all(filecmp.cmp(path, folder / path.relative_to(model), shallow=False) for path in small) and all(
        _equal(_exported(path), load_checkpoint(folder / path.relative_to(model))) for path in checkpoints
    )


def _equal(one: Any, other: Any) -> bool:
    """Of what checkpoints hold."""
    import torch

    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other or (one != one and other != other))  # NaN


def _small_files(model: Path) -> Iterator[Path]:
    yield from sorted(model.glob("*.json"))
    for fold in sorted(model.glob("fold_*")):
        yield from (
            path for path in (fold / "progress.png", fold / "validation" / "summary.json") if os.path.lexists(path)
        )


def _check_regular(path: Path) -> None:
    """Refuses links, which could carry any file of this machine into the copy, and pipes, which have no end."""
    # Its folder may be a link as well.
    if not stat.S_ISREG(path.lstat().st_mode) or path.resolve() != path:
        raise InputError(f"{path}: is a link or no regular file; put the file itself there, if it is yours")


def _export_checkpoint(source: Path, target: Path) -> str:
    """Returns the name of the trainer that the copy names."""
    import torch

    checkpoint = _exported(source)
    torch.save(checkpoint, target)
    return checkpoint["trainer_name"]


def _exported(source: Path) -> dict:
    """A checkpoint with the name of the trainer without synthetic tumors."""
    checkpoint = load_checkpoint(source)
    name = checkpoint.get("original_trainer_name", checkpoint["trainer_name"])
    if name.startswith((ON, LABEL_FREE_ON)):
        named = name.removeprefix(ON).removeprefix(LABEL_FREE_ON)
    elif name in TRAINERS or name == STOCK_TRAINER:
        named = STOCK_TRAINER
    else:
        raise InputError(
            f"{source}: was trained by {name}, which may build other networks than {STOCK_TRAINER}; expected one of "
            f"{ON}NAME, {LABEL_FREE_ON}NAME, {', '.join(TRAINERS)}"
        )
    return checkpoint | {"trainer_name": named, "original_trainer_name": name}


def load_checkpoint(path: Path) -> dict:
    """Loads a checkpoint of nnU-Net on the CPU; nothing in the file is executed.

    Beyond tensors it holds numbers of numpy (its log and its best Dice), which are allowed by name.

    Raises:
        InputError: the file is broken, is no checkpoint of nnU-Net, or holds other objects than numbers and tensors.
    """
    import torch

    scalar: Any = np.float64(0).__reduce__()[0]
    numbers = [type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)]
    # numpy 2 renamed the module, and checkpoints of both are about.
    scalars = [(scalar, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")]
    try:
        with torch.serialization.safe_globals([*scalars, np.dtype, *numbers]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message begins with how to load the file all the same, which is no good advice here.
        refused = re.search(r"(unsupported|Unsupported|unrecognized) .*", str(error))
        raise InputError(
            f"{path}: broken, or it holds other objects than tensors and numbers, which could execute code"
            + (f" ({refused.group()})" if refused else "")
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path}: cannot be loaded as a checkpoint ({error or 'empty file'})") from error
    if not isinstance(checkpoint, dict) or not {"trainer_name", "network_weights", "init_args"} <= checkpoint.keys():
        raise InputError(f"{path}: is no checkpoint of nnU-Net (no trainer_name, network_weights or init_args)")
    return checkpoint
