"""Synthetic tumors in any trainer that nnU-Net can find: `-tr nnUNetTrainerDiffTumor_on_NAME`.

The classes are made when they are asked for. They are attributes of this module, by which they pickle.
"""

import inspect
import io
from contextlib import redirect_stdout
from functools import cache
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.trainers import LABEL_FREE_ON, ON, module_of
from nnunet_difftumor.trainers.known_names import nearest_trainers
from nnunet_difftumor.trainers.label_free import SyntheticTumorsOnly
from nnunet_difftumor.trainers.synthetic_tumors import SyntheticTumors

# What these decide, a training with synthetic tumors decides by its folds: there is nothing to be made of both.
_DECIDED_HERE = ("do_split", "get_tr_and_val_datasets")


def __getattr__(name: str) -> type:
    if name.startswith((ON, LABEL_FREE_ON)):
        return composed_trainer(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def composed_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer NAME with synthetic tumors in its training batches.

    NAME's loss, optimizer, schedule, transforms, epochs and mirroring are unchanged, mirroring unless `mirror_axes` of
    difftumor.json names axes. Training cases, their order and the tumors are those of `SyntheticTumors`.

    Args:
        name: `nnUNetTrainerDiffTumor_on_NAME`, or `nnUNetTrainerDiffTumorLabelFree_on_NAME` for synthetic tumors only.

    Raises:
        InputError: nnU-Net does not know NAME, its name cannot be part of a folder's, it has synthetic tumors already,
            or it has a method that cannot be kept.
    """
    mixin = SyntheticTumors if name.startswith(ON) else SyntheticTumorsOnly
    base_name = name.removeprefix(ON).removeprefix(LABEL_FREE_ON)
    base = find_base(base_name)
    _check_methods(base)
    members: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"{base_name} with synthetic tumors in its training batches.",
        "mirrors_as_trainer": True,
    }
    return type(name, (mixin, base), members)


def find_base(name: str) -> type[nnUNetTrainer]:
    """The trainer of a name, by nnU-Net's own search.

    Raises:
        InputError: there is none, or it is none to put synthetic tumors into.
    """
    if "__" in name:
        raise InputError(
            f"trainer {name!r}: has '__' in its name, at which nnU-Net splits the names of results' folders; rename "
            "the class"
        )
    if module_of(name) is not None:
        raise InputError(f"trainer {name}: has synthetic tumors already; use it as it is, `-tr {name}`")
    try:
        # nnU-Net says at length where it looks.
        with redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        if "Could not find requested nnunet trainer" not in str(error):
            raise
        raise InputError(
            f"trainer {name!r}: nnU-Net does not know it, neither of itself nor in the folders that nnUNet_extTrainer "
            f"names; the nearest: {', '.join(nearest_trainers(name))}"
        ) from error


def _check_methods(base: type[nnUNetTrainer]) -> None:
    for method in _DECIDED_HERE:
        if getattr(base, method) is not getattr(nnUNetTrainer, method):
            raise InputError(
                f"trainer {base.__name__}: has its own {method}, by which it chooses cases, while synthetic tumors "
                "need the cases and folds of `difftumor prepare`; take a trainer without it"
            )
    expected = list(inspect.signature(nnUNetTrainer.__init__).parameters)
    found = list(inspect.signature(base.__init__).parameters)
    if found != expected:
        raise InputError(
            f"trainer {base.__name__}: its __init__ takes {', '.join(found[1:])}; expected nnU-Net's "
            f"{', '.join(expected[1:])}"
        )
