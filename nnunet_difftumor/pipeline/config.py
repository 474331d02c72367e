"""`difftumor.json`: how a prepared dataset is trained with synthetic tumors.

Written by `difftumor prepare`, made to be edited.
"""

import dataclasses
import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.preset import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.presets import PRESETS

FILE_NAME = "difftumor.json"
PLANS_NAME = "nnUNetPlansDiffTumor"
WINDOW_HU = (-175.0, 250.0)
SCHEMA_VERSION = 1
SOURCES = ("handcrafted", "bank")
MIRROR_AXES = ("left-right", "front-back", "head-foot")


@dataclass(frozen=True)
class DiffTumorConfig:
    """The settings of a dataset.

    Attributes:
        organs: organ and tumor label pairs; each synthetic sample draws one of those that its case has.
        preset: distributions of the tumors, a name in `presets.PRESETS`.
        size_weights: shares of the size classes, instead of the preset's mix; None: the preset's.
        contrast_hu: least and greatest contrast to the tissue around, instead of the preset's; None: the preset's.
        synthetic_probability: share of training samples that get synthetic tumors, 0 to 1.
        look_alike_probability: share of the synthetic samples that also get a benign look-alike without a label (cyst,
            haemangioma), 0 to 1.
        real_cases_as_bases: whether cases with real tumors get synthetic ones too (never touching a real lesion).
        source: "handcrafted" renders in the loader; "bank" reads lesion files from `bank_folder`.
        bank_folder: folder of lesion files.
        mirror_axes: axes along which training mirrors: "left-right", "front-back", "head-foot".
        seed: of a run's batches and tumors.
        schema_version: of this file.
    """

    organs: tuple[Organ, ...]
    preset: str = "realistic"
    size_weights: Mapping[str, float] | None = None
    contrast_hu: tuple[float, float] | None = None
    synthetic_probability: float = 0.5
    look_alike_probability: float = 0.0
    real_cases_as_bases: bool = False
    source: str = "handcrafted"
    bank_folder: str | None = None
    mirror_axes: tuple[str, ...] = ()
    seed: int = 0
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal config."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def save(self, path: str | Path) -> None:
        """Writes the file atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "DiffTumorConfig":
        """Reads and checks the file.

        Raises:
            InputError: naming file and field, for whatever is missing, unknown, of the wrong type or out of range.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: not found; the dataset has not been prepared for synthetic tumors: "
                "run `difftumor prepare -d DATASET_ID` first"
            )
        try:
            record = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: is not valid JSON ({error}); mend it or run `difftumor prepare` again"
            ) from error
        return cls.from_dict(record, where=str(path))

    @classmethod
    def from_dict(cls, record: Any, *, where: str = FILE_NAME) -> "DiffTumorConfig":
        """Checks a record; `where` names its origin in errors."""
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object, got {type(record).__name__}")
        _check_keys(record, cls, where)
        check = _Checker(record, where)
        check.value("schema_version", lambda v: _is_integer(v) and v == SCHEMA_VERSION, f"{SCHEMA_VERSION}")
        check.value("preset", lambda v: v in list(PRESETS), f"one of {', '.join(PRESETS)}")
        check.value("size_weights", _good_weights, f"null, or shares of {', '.join(SIZE_BANDS_MM)}, some above 0")
        check.value("contrast_hu", _good_contrast, "null, or two numbers within -300 to 300, the smaller one first")
        check.value("synthetic_probability", lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
        check.value("look_alike_probability", lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
        check.value("real_cases_as_bases", lambda v: isinstance(v, bool), "true or false")
        check.value("source", lambda v: v in SOURCES, f"one of {', '.join(SOURCES)}")
        check.value("bank_folder", lambda v: v is None or (isinstance(v, str) and v), "null or a folder")
        check.value("mirror_axes", _good_axes, f"a list of some of {', '.join(MIRROR_AXES)}")
        check.value("seed", lambda v: _is_integer(v) and v >= 0, "an integer of at least 0")
        check.value("organs", lambda v: isinstance(v, list) and v, "a list with at least one organ")
        if record.get("source") == "bank" and not record.get("bank_folder"):
            raise InputError(f'{where}: bank_folder is missing; with source "bank" it names the folder of lesion files')
        organs = tuple(_organ(organ, f"{where}: organs[{i}]") for i, organ in enumerate(record["organs"]))
        names = [organ.name for organ in organs]
        if len(set(names)) < len(names):
            raise InputError(f"{where}: organs have the names {names}; each must have its own")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        return cls(**{**values, "organs": organs})


def _organ(record: Any, where: str) -> Organ:
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object, got {record!r}")
    _check_keys(record, Organ, where)
    check = _Checker(record, where)

    def labels(value: Any) -> bool:
        return isinstance(value, list) and all(_is_integer(label) and label > 0 for label in value)

    check.value("name", lambda v: isinstance(v, str) and v.isidentifier(), "a word of letters, digits and _")
    check.value("organ_labels", lambda v: labels(v) and len(v) > 0, "a list of label values above 0")
    check.value("avoid_labels", labels, "a list of label values above 0")
    check.value("tumor_label", lambda v: _is_integer(v) and v > 0, "a label value above 0")
    if record["tumor_label"] in record["organ_labels"]:
        raise InputError(f"{where}: tumor_label {record['tumor_label']} is also an organ label; they must differ")
    return Organ(
        record["name"],
        tuple(record["organ_labels"]),
        record["tumor_label"],
        # The tumor's own label marks real tumors too: they are avoided whether the file says so or not.
        tuple(sorted({*record.get("avoid_labels", ()), record["tumor_label"]})),
    )


class _Checker:
    def __init__(self, record: Mapping[str, Any], where: str) -> None:
        self.record, self.where = record, where

    def value(self, key: str, good, expected: str) -> None:
        if key in self.record and not good(self.record[key]):
            raise InputError(f"{self.where}: {key} is {json.dumps(self.record[key])}, expected {expected}")


def _check_keys(record: Mapping[str, Any], cls: type, where: str) -> None:
    known = [entry.name for entry in dataclasses.fields(cls)]
    for key in record:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            raise InputError(f"{where}: unknown key {key!r}; {hint}")
    required = [entry.name for entry in dataclasses.fields(cls) if entry.default is dataclasses.MISSING]
    missing = [key for key in required if key not in record]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} is missing; run `difftumor prepare` to write a complete file")


def _is_number(value: Any) -> bool:
    # Integers may be beyond every float, which `math.isfinite` does not take.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _good_weights(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and set(value) <= set(SIZE_BANDS_MM)
        and all(_is_number(share) and share >= 0 for share in value.values())
        and sum(value.values()) > 0
    )


def _good_contrast(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_number(hu) and -300 <= hu <= 300 for hu in value)
        and value[0] <= value[1]
    )


def _good_axes(value: Any) -> bool:
    return isinstance(value, list) and all(axis in MIRROR_AXES and value.count(axis) == 1 for axis in value)
