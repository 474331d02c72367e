"""Results of `evaluate` read back, and whether they may be compared."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError, shown, some
from nnunet_difftumor.evaluation.measures.case import CaseResult
from nnunet_difftumor.evaluation.results.layout import SCHEMA_VERSION, case_from_json
from nnunet_difftumor.json_checks import read_json

# Settings that decide what is counted; the rest says where it was read from.
_COUNTED = ("nsd_tolerance_mm", "match", "size_bands_mm", "organ_labels", "ignore_label", "missing", "candidates")


@dataclass(frozen=True)
class Method:
    """A result of `evaluate`.

    Attributes:
        name: of the method.
        path: of the JSON file.
        settings: that decide what is counted.
        cases: by tumor label and then by case.
        patients: by case, for those whose patient is stated.
        content: of the file.
    """

    name: str
    path: Path
    settings: Mapping[str, Any]
    cases: Mapping[str, Mapping[str, CaseResult]]
    patients: Mapping[str, str]
    content: Mapping[str, Any]


def load_methods(paths: Sequence[str | os.PathLike], names: Sequence[str] = ()) -> list[Method]:
    """Reads results that may be compared.

    Args:
        paths: JSON files of `evaluate`, two or more.
        names: one each; none: taken from the files' names.

    Raises:
        InputError: if a file is something else, or they differ in cases, true tumors or settings.
    """
    if len(paths) < 2:
        raise InputError(f"`results`: expected two or more JSON files of `difftumor evaluate`, got {len(paths)}")
    named = list(names) or _names([Path(path) for path in paths])
    if len(named) != len(paths) or len(set(named)) != len(named):
        raise InputError(f"`names`: expected {len(paths)} different ones, a name for each result, got {named}")
    methods = [_load(Path(path), name) for path, name in zip(paths, named, strict=True)]
    for other in methods[1:]:
        _check_comparable(methods[0], other)
    return methods


def load_results(path: Path, names: Sequence[str] = ()) -> Method:
    """Reads one result.

    Args:
        path: JSON file of `evaluate`.
        names: that of the method, or none: the name of the file.

    Raises:
        InputError: if the file is something else.
    """
    if len(names) > 1:
        raise InputError(f"`names`: expected one, for one result, got {list(names)}")
    return _load(path, names[0] if names else path.stem)


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [path.resolve().with_suffix("").parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if max(Counter(names).values()) == 1:
            return names
    raise InputError(f"`results`: {paths[0]} is given twice")


def _load(path: Path, name: str) -> Method:
    content = read_json(
        path,
        dict,
        expected="a result of `difftumor evaluate`",
        missing="make it with `difftumor evaluate GT PRED -o FILE`",
        fix="make it again with `difftumor evaluate GT PRED -o FILE`",
    )
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version is {shown(content.get('schema_version'))}, expected {SCHEMA_VERSION}; make it "
            "again with `difftumor evaluate` of this version"
        )
    try:
        cases = {
            tumor: {case: case_from_json(found) for case, found in of_tumor["cases"].items()}
            for tumor, of_tumor in content["tumors"].items()
        }
        patients = {
            case: str(found["patient"])
            for of_tumor in content["tumors"].values()
            for case, found in of_tumor["cases"].items()
            if "patient" in found
        }
        settings = {key: content["settings"][key] for key in _COUNTED}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not a result of `difftumor evaluate` ({type(error).__name__}: {error}); make it again"
        ) from error
    return Method(name, path, settings, cases, patients, content)


def _check_comparable(first: Method, second: Method) -> None:
    where = f"{second.path} and {first.path}"
    if differing := [key for key in _COUNTED if first.settings[key] != second.settings[key]]:
        key = differing[0]
        raise InputError(
            f"{where}: {key} is {shown(second.settings[key])} in one and {shown(first.settings[key])} in the other; "
            "evaluate both with the same options"
        )
    if first.cases.keys() != second.cases.keys():
        raise InputError(
            f"{where}: have the tumor labels {', '.join(second.cases)} and {', '.join(first.cases)}; expected the same"
        )
    for tumor, cases in first.cases.items():
        if others := sorted(cases.keys() ^ second.cases[tumor].keys()):
            raise InputError(
                f"{where}: {some(others)} {'is' if len(others) == 1 else 'are'} in one only; evaluate the same cases"
            )
        if unlike := sorted(case for case in cases if _truth(cases[case]) != _truth(second.cases[tumor][case])):
            raise InputError(
                f"{where}: the true tumors of {some(unlike)} differ; compare predictions with the same ground truth"
            )
    if first.patients != second.patients:
        raise InputError(f"{where}: the patients of their cases differ; evaluate both with the same table of cases")


def _truth(case: CaseResult) -> tuple[float, ...]:
    return (case.truth_ml, *(tumor.diameter_mm for tumor in case.tumors))
