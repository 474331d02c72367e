"""Plans from records of a file, checked to the last key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.evaluation.measures.matching import RULES
from nnunet_difftumor.experiments.figures import FIGURES
from nnunet_difftumor.experiments.planning.plan import DEVICES, Arm, HeldOut, Measures, Plan, Published
from nnunet_difftumor.json_checks import Checker, check_keys, is_integer, is_number, is_share
from nnunet_difftumor.names import is_plain_name, nearest_name
from nnunet_difftumor.trainers import TRAINERS, module_of

_PLAIN = "a plain name of 1 to 64 letters, digits, _ and -"


def checked_plan(record: Any, *, where: str, folder: Path) -> Plan:
    """The plan of a record.

    Args:
        record: of the file.
        where: its name, for messages.
        folder: that relative paths in it start from.

    Raises:
        InputError: naming file and key, for whatever is missing, unknown or wrong.
    """
    check_keys(record, Plan, where)
    _check_values(Checker(record, where))
    arms = {name: _arm(arm, f"{where}: arms.{name}") for name, arm in record["arms"].items()}
    values = dict(record) | {
        "arms": arms,
        "seeds": tuple(record["seeds"]),
        "folds": tuple(record.get("folds", (0,))),
        "test": _held_out(record.get("test"), f"{where}: test", folder),
        "evaluate": _measures(record.get("evaluate", {}), f"{where}: evaluate", folder),
        "published": tuple(
            _published(one, arms, f"{where}: published[{i}]") for i, one in enumerate(record.get("published", ()))
        ),
        "slurm": {key: str(value) for key, value in record.get("slurm", {}).items()},
    }
    plan = Plan(**values)
    _check_whole(plan, where)
    return plan


def _check_values(check: Checker) -> None:
    count = "a whole number of at least 1"
    check.value("name", is_plain_name, _PLAIN)
    check.value("about", lambda v: isinstance(v, str), "text")
    check.value("dataset", lambda v: is_integer(v) and v >= 1, "the number of a prepared dataset")
    check.value("arms", _are_arms, f"two arms or more by name, each {_PLAIN}")
    check.value(
        "seeds", lambda v: _are(v, lambda seed: is_integer(seed) and seed >= 0), "different integers, from 0 on"
    )
    check.value("epochs", lambda v: is_integer(v) and v >= 1, count)
    check.value("iterations_per_epoch", lambda v: is_integer(v) and v >= 1, count)
    check.value("plans", is_plain_name, _PLAIN)
    check.value("configuration", is_plain_name, _PLAIN)
    check.value(
        "folds", lambda v: v == ["all"] or _are(v, lambda fold: is_integer(fold) and fold >= 0), "[all], or folds"
    )
    check.value("device", lambda v: v in DEVICES, f"one of {', '.join(DEVICES)}")
    check.value("step_size", lambda v: is_share(v) and v > 0, "a number above 0, at most 1")
    check.value("published", lambda v: isinstance(v, list), "a list of figures")
    check.value("seconds_per_iteration", lambda v: v is None or (is_number(v) and v > 0), "null, or a number above 0")
    check.value("slurm", _are_options, "options of sbatch, such as gres: gpu:1")


def _arm(record: Any, where: str) -> Arm:
    check_keys(record, Arm, where)
    check = Checker(record, where)
    check.value("settings", lambda v: isinstance(v, dict), "settings of difftumor.json, by name")
    check.value("cases", _are_cases, "a number of at least 1, or a list of different names of cases")
    check.value("against", lambda v: v is None or isinstance(v, str), "the name of an arm")
    trainer = record["trainer"]
    if not isinstance(trainer, str) or module_of(trainer) is None:
        near = nearest_name(trainer, TRAINERS) if isinstance(trainer, str) else None
        raise InputError(
            f"{where}: trainer is {shown(trainer)}, expected one of this package, whose first weights and batches "
            "come from the seed"
            + (
                f"; did you mean {near}?"
                if near
                else ": nnUNetTrainerDiffTumor, or nnUNetTrainerDiffTumor_on_NAME for any other"
            )
        )
    if "seed" in record.get("settings", {}):
        raise InputError(f"{where}: settings has seed; name the seeds of all arms in seeds")
    cases = record.get("cases")
    return Arm(**dict(record) | {"cases": tuple(cases) if isinstance(cases, list) else cases})


def _held_out(record: Any, where: str, folder: Path) -> HeldOut | None:
    if record is None:
        return None
    check_keys(record, HeldOut, where)
    check = Checker(record, where)
    for key in ("images", "labels"):
        check.value(key, _is_path, "a folder")
    check.value("table", lambda v: v is None or _is_path(v), "null, or a CSV file")
    return HeldOut(**{key: _from(folder, value) for key, value in record.items()})


def _measures(record: Any, where: str, folder: Path) -> Measures:
    check_keys(record, Measures, where)
    check = Checker(record, where)
    for key in ("tumor_label", "organ_label"):
        check.value(key, lambda v: isinstance(v, list) and (not v or _are(v, is_integer)), "a list of label values")
    check.value("organ_masks", lambda v: v is None or _is_path(v), "null, or a folder")
    check.value("match", lambda v: v in list(RULES), f"one of {', '.join(RULES)}")
    check.value("min_iou", is_share, "a number from 0 to 1")
    check.value("nsd_tolerance_mm", lambda v: is_number(v) and v > 0, "a number of mm above 0")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Measures(**values | {"organ_masks": _from(folder, record.get("organ_masks"))})


def _published(record: Any, arms: Mapping[str, Arm], where: str) -> Published:
    check_keys(record, Published, where)
    check = Checker(record, where)
    check.value("arm", lambda v: v in list(arms), f"one of {', '.join(arms)}")
    check.value("figure", lambda v: v in list(FIGURES), f"one of {', '.join(FIGURES)}")
    check.value("value", is_number, "a number")
    check.value("source", lambda v: isinstance(v, str) and v, "paper and table")
    check.value("tumor", lambda v: v is None or isinstance(v, str), "null, or the name of a tumor label")
    return Published(**record)


def _check_whole(plan: Plan, where: str) -> None:
    """What one key says of another."""
    for key, name in [("baseline", plan.baseline), *((f"arms.{a}.against", plan.arms[a].against) for a in plan.arms)]:
        if name is not None and name not in list(plan.arms):
            near = nearest_name(str(name), plan.arms)
            hint = f"did you mean {near}?" if near else f"arms: {', '.join(plan.arms)}"
            raise InputError(f"{where}: {key} is {shown(name)}, which is no arm; {hint}")
    if itself := [name for name, arm in plan.arms.items() if arm.against == name]:
        raise InputError(f"{where}: arms.{itself[0]}.against is the arm itself; name another one")
    if plan.test is None:
        if free := [name for name, arm in plan.arms.items() if arm.is_label_free]:
            raise InputError(
                f"{where}: arms.{free[0]} is label-free, and validates on synthetic tumors; name test cases with real "
                "ones in test"
            )
        if plan.folds == ("all",):
            raise InputError(f"{where}: folds is [all], which leaves no case to validate; name test cases in test")
    elif len(plan.folds) > 1:
        raise InputError(
            f"{where}: folds is {list(plan.folds)}, but the test cases are the same for all; name one fold, or [all]"
        )
    if plan.folds == ("all",) and (some := [name for name, arm in plan.arms.items() if arm.cases is not None]):
        raise InputError(
            f"{where}: arms.{some[0]} has cases, which are drawn from a fold; folds is [all]: name a number"
        )


def _are(values: Any, good: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(map(good, values)) and len(set(values)) == len(values)


def _are_arms(value: Any) -> bool:
    return isinstance(value, dict) and len(value) >= 2 and all(map(is_plain_name, value))


def _are_cases(value: Any) -> bool:
    return value is None or (is_integer(value) and value >= 1) or _are(value, lambda v: isinstance(v, str) and v)


def _are_options(value: Any) -> bool:
    """One line each, and nothing that could be taken for another option."""
    return isinstance(value, dict) and all(
        isinstance(key, str)
        and key.replace("-", "a").isalnum()
        and not key.startswith("-")
        and isinstance(text, str | int)
        and not isinstance(text, bool)
        and str(text).isprintable()
        for key, text in value.items()
    )


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _from(folder: Path, path: str | None) -> str | None:
    return None if path is None else str((folder / Path(path).expanduser()).absolute())
