"""Reads plans: YAML files of the user, and those that come with the package."""

import os
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.experiments.planning.checks import checked_plan
from nnunet_difftumor.experiments.planning.plan import DEVICES, Plan
from nnunet_difftumor.names import nearest_name

_READY = Path(__file__).parents[1] / "plans"
_MOST_BYTES = 1 << 20


def ready_plans() -> dict[str, str]:
    """The plans that come with the package: by name what each asks."""
    return {path.stem: str(_load(path).get("about", "")) for path in sorted(_READY.glob("*.yaml"))}


def read_plan(
    plan: str | os.PathLike,
    *,
    dataset_id: int | None = None,
    images: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    device: str | None = None,
) -> Plan:
    """Reads and checks a plan.

    Args:
        plan: a YAML file, or the name of a ready plan.
        dataset_id: number of a prepared dataset, instead of the plan's.
        images, labels: folders of test cases, instead of the plan's.
        device: of nnU-Net, instead of the plan's.

    Raises:
        InputError: naming file and key.
    """
    path = _find(plan)
    record = _load(path)
    if dataset_id is not None:
        record["dataset"] = dataset_id
    elif "dataset" not in record and path.parent == _READY:
        raise InputError(f"plan {path.stem}: is for any dataset; name one with `dataset_id`")
    if (images is None) != (labels is None):
        raise InputError("`images` and `labels` belong together: give both, or neither")
    if images is not None:
        # Patients are those of the plan's own test cases.
        record["test"] = {"images": str(Path(images).absolute()), "labels": str(Path(labels).absolute())}
    if device is not None:
        if device not in DEVICES:
            raise InputError(f"`device` is {shown(device)}, expected one of {', '.join(DEVICES)}")
        record["device"] = device
    return checked_plan(record, where=str(path), folder=path.absolute().parent)


def _find(plan: str | os.PathLike) -> Path:
    path = Path(plan)
    if path.is_file():
        return path
    ready = {one.stem: one for one in _READY.glob("*.yaml")}
    if str(plan) in ready:
        return ready[str(plan)]
    near = nearest_name(str(plan), ready)
    raise InputError(
        f"{plan}: no such file, and no ready plan"
        + (f"; did you mean {near}?" if near else f"; ready plans: {', '.join(sorted(ready))}")
    )


def _load(path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice, of which YAML would silently keep the last one."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen = set()
            for key, _ in node.value:
                if key.value in seen and isinstance(key.value, str):
                    raise InputError(f"{path}: line {key.start_mark.line + 1}: {key.value} is there twice; keep one")
                seen.add(key.value if isinstance(key.value, str) else id(key))
            return super().construct_mapping(node, deep)

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, expected the plan of an experiment")
        record = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or type(error).__name__
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{path}: {line}is not valid YAML ({said}); correct it there") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: is {shown(record)}, expected keys of a plan such as name, arms, seeds")
    return record
