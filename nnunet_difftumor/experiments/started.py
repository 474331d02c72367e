"""What an output folder is of: the plan and the dataset that it was begun with, which must not change."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.experiments.planning.plan import Plan
from nnunet_difftumor.experiments.run_folder import SPLITS
from nnunet_difftumor.files import write_json, write_json_once
from nnunet_difftumor.json_checks import read_json
from nnunet_difftumor.prepared.config import FILE_NAME

STARTED = "experiment.json"
# JSON is YAML: the plan with all that was chosen on the command line, for jobs.
PLAN_FILE = "plan.yaml"
_SCHEMA_VERSION = 1
# They decide where and how fast, and not what comes out.
_FREE = ("about", "published", "seconds_per_iteration", "slurm")
_MOST_SHOWN = 4


def plan_sha256(plan: Plan) -> str:
    """Of what decides the results."""
    return hashlib.sha256(json.dumps(_deciding(plan.to_dict()), sort_keys=True).encode()).hexdigest()


def begin(output: Path, plan: Plan, dataset_folder: Path) -> None:
    """Notes what is begun, or checks that it is what was begun before.

    Args:
        output: of the experiment.
        plan: the plan.
        dataset_folder: of the prepared dataset.

    Raises:
        InputError: the folder holds other things, or plan or dataset have changed.
    """
    path = output / STARTED
    if not path.is_file():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            what = "holds files that are not of an experiment" if output.is_dir() else "is a file"
            raise InputError(f"`output` {output}: {what}; name another folder")
        content = {
            "schema_version": _SCHEMA_VERSION,
            "version": __version__,
            "sha256": plan_sha256(plan),
            "plan": plan.to_dict(),
            "dataset_files": _hashes(plan, dataset_folder),
        }
        write_json_once(path, content)
    again = "name another output folder"
    before = read_json(path, dict, expected="what an experiment was begun with", missing=again, fix=again)
    if before.get("schema_version") != _SCHEMA_VERSION or not isinstance(before.get("plan"), dict):
        raise InputError(f"{path}: is not of this version; {again}")
    if differing := list(_differences(_deciding(before["plan"]), _deciding(plan.to_dict()))):
        more = f" (and {len(differing) - _MOST_SHOWN} more)" if len(differing) > _MOST_SHOWN else ""
        raise InputError(
            f"{output}: was begun with another plan: {'; '.join(differing[:_MOST_SHOWN])}{more}; name another output "
            "folder, or put the plan back"
        )
    now = _hashes(plan, dataset_folder)
    if changed := sorted(name for name, digest in now.items() if before.get("dataset_files", {}).get(name) != digest):
        raise InputError(
            f"{dataset_folder / changed[0]}: has changed since {output} was begun, so that later runs would not be of "
            "the same dataset; put it back, or name another output folder"
        )
    write_json(output / PLAN_FILE, plan.to_dict())


def _deciding(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plan.items() if key not in _FREE}


def _hashes(plan: Plan, folder: Path) -> dict[str, str]:
    names = (f"{plan.plans}.json", SPLITS, FILE_NAME, "dataset.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Key by key: what was, and what is."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key} was {shown(before)} and is {shown(now)}"
