"""`difftumor.json`: how a prepared dataset is trained with synthetic tumors.

Written by `difftumor prepare`, made to be edited.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.json_checks import Checker, check_keys, is_integer, is_number, is_share, load_json
from nnunet_difftumor.names import is_plain_name
from nnunet_difftumor.prepared.live_settings import LiveSettings
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.sample_shares import PUBLIC_CODE, SampleShares
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.visibility import MOST_CONTRAST_TO_NOISE

FILE_NAME = "difftumor.json"
PLANS_NAME = "nnUNetPlansDiffTumor"
WINDOW_HU = (-175.0, 250.0)
SCHEMA_VERSION = 1
SOURCES = ("handcrafted", "live", "bank")
ON_WRONG_DATA = ("stop", "warn")
_SHARES = f'"{PUBLIC_CODE}", or shares that add up to 1'
MIRROR_AXES = ("left-right", "front-back", "head-foot")


@dataclass(frozen=True)
class CurriculumStep:
    """A mix of sizes for the epochs from one on.

    Attributes:
        from_epoch: the first epoch that it is for, counted from 0.
        size_weights: shares of the size classes.
    """

    from_epoch: int
    size_weights: Mapping[str, float]


@dataclass(frozen=True)
class DiffTumorConfig:
    """The settings of a dataset.

    Attributes:
        organs: organ and tumor label pairs; each synthetic sample draws one of those that its case has.
        preset: distributions of the tumors, a name in `presets.PRESETS`.
        size_weights: shares of the size classes, instead of the preset's mix; None: the preset's.
        curriculum: other mixes for later epochs, in their order.
        contrast_hu: least and greatest contrast to the tissue around, instead of the preset's; None: the preset's.
        minimum_contrast_to_noise: tumors with less contrast, in units of the noise around, are refused and drawn again
            (`synthesis.visibility`); None: none is.
        clear_of_vessels: whether tumors of every size keep clear of vessels, not only tiny and small ones.
        shares: of what training samples show: real cases, cases with synthetic tumors, healthy cases as they are;
            "public_code" has them follow from the numbers of cases, as in DiffTumor's public code.
        look_alike_probability: share of the synthetic samples that also get a benign look-alike without a label (cyst,
            haemangioma), 0 to 1.
        real_cases_as_bases: whether cases with real tumors get synthetic ones too (never touching a real lesion).
        source: "handcrafted" renders in the loader; "live" has diffusion models draw while training runs; "bank" reads
            lesion files from `bank_folder`.
        bank_folder: folder of lesion files.
        handcrafted_share: share of the synthetic samples that get hand-crafted tumors all the same, 0 to 1.
        live: how live tumors are made.
        mirror_axes: axes along which training mirrors: "left-right", "front-back", "head-foot".
        on_wrong_data: "stop", or "warn" to train all the same where data, bank or weights are not what the dataset was
            prepared from, or a check found something wrong with them.
        seed: of a run's batches, tumors and first weights of the network.
        schema_version: of this file.
    """

    organs: tuple[Organ, ...]
    preset: str = "realistic"
    size_weights: Mapping[str, float] | None = None
    curriculum: tuple[CurriculumStep, ...] = ()
    contrast_hu: tuple[float, float] | None = None
    minimum_contrast_to_noise: float | None = None
    clear_of_vessels: bool = False
    shares: SampleShares | str = SampleShares(real=0.5, synthetic=0.5, healthy=0.0)  # noqa: RUF009 (frozen)
    look_alike_probability: float = 0.0
    real_cases_as_bases: bool = False
    source: str = "handcrafted"
    bank_folder: str | None = None
    handcrafted_share: float = 0.0
    live: LiveSettings = field(default_factory=LiveSettings)
    mirror_axes: tuple[str, ...] = ()
    on_wrong_data: str = "stop"
    seed: int = 0
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def needs_server(self) -> bool:
        """Whether any tumor is drawn live."""
        return self.source == "live" and self.handcrafted_share < 1

    def shares_for(self, *, real: int, healthy: int) -> SampleShares:
        """The shares of a training.

        Args:
            real, healthy: numbers of its cases with real tumors, and without.

        Raises:
            InputError: healthy samples are asked for, and no case is healthy.
        """
        if isinstance(self.shares, SampleShares):
            shares = self.shares
        else:
            shares = SampleShares.as_public_code(real=real, healthy=healthy)
        shares = shares if real else shares.without_real_cases()
        if shares.healthy and not healthy:
            raise InputError(
                f"{FILE_NAME}: shares ask for healthy samples ({shares.in_words()}), but every case has real tumors; "
                'set "healthy" to 0, or add healthy cases'
            )
        return shares

    def sizes(self) -> set[str]:
        """The size classes that a training may draw."""
        mixes = [self.size_weights or PRESETS[self.preset].weights, *(step.size_weights for step in self.curriculum)]
        drawn = {size for mix in mixes for size, share in mix.items() if share > 0}
        return drawn | (set(SIZE_BANDS_MM) if self.size_weights is None and PRESETS[self.preset].every_size else set())

    def size_weights_in(self, epoch: int) -> Mapping[str, float] | None:
        """The mix of sizes of an epoch; None: the preset's."""
        steps = [step for step in self.curriculum if step.from_epoch <= epoch]
        return steps[-1].size_weights if steps else self.size_weights

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal config."""
        return json.loads(json.dumps(dataclasses.asdict(self) | {"organs": [organ.to_dict() for organ in self.organs]}))

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
            record = load_json(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: is not valid JSON ({error}); correct it there, or delete the file: `difftumor prepare` then "
                "writes a new one"
            ) from error
        return cls.from_dict(record, where=str(path))

    @classmethod
    def from_dict(cls, record: Any, *, where: str = FILE_NAME) -> "DiffTumorConfig":
        """Checks a record; `where` names its origin in errors."""
        record = _with_shares(record, where)
        check_keys(record, cls, where)
        check = Checker(record, where)
        check.value("schema_version", lambda v: is_integer(v) and v == SCHEMA_VERSION, f"{SCHEMA_VERSION}")
        check.value("preset", lambda v: v in list(PRESETS), f"one of {', '.join(PRESETS)}")
        sizes = f"shares of {', '.join(SIZE_BANDS_MM)}, some above 0"
        check.value("size_weights", lambda v: v is None or _are_size_weights(v), f"null, or {sizes}")
        check.value("curriculum", lambda v: isinstance(v, list), "a list of mixes with the epochs that they begin in")
        check.value("contrast_hu", _good_contrast, "null, or two numbers within -300 to 300, the smaller one first")
        check.value("minimum_contrast_to_noise", _good_ratio, f"null, or a number from 0 to {MOST_CONTRAST_TO_NOISE:g}")
        check.value("clear_of_vessels", lambda v: isinstance(v, bool), "true or false")
        check.value("shares", lambda v: v == PUBLIC_CODE or isinstance(v, dict), _SHARES)
        check.value("look_alike_probability", is_share, "a number from 0 to 1")
        check.value("real_cases_as_bases", lambda v: isinstance(v, bool), "true or false")
        check.value("source", lambda v: v in SOURCES, f"one of {', '.join(SOURCES)}")
        check.value("bank_folder", lambda v: v is None or (isinstance(v, str) and v), "null or a folder")
        check.value("handcrafted_share", is_share, "a number from 0 to 1")
        check.value("live", lambda v: isinstance(v, dict), "an object with settings of live tumors")
        check.value("mirror_axes", _good_axes, f"a list of some of {', '.join(MIRROR_AXES)}")
        check.value("on_wrong_data", lambda v: v in ON_WRONG_DATA, f"one of {', '.join(ON_WRONG_DATA)}")
        check.value("seed", lambda v: is_integer(v) and v >= 0, "an integer of at least 0")
        check.value("organs", lambda v: isinstance(v, list) and v, "a list with at least one organ")
        live = LiveSettings.from_dict(record.get("live", {}), where=f"{where}: live")
        contrast_unused = record.get("source") == "live" and not record.get("handcrafted_share")
        if contrast_unused and record.get("contrast_hu") is not None:
            raise InputError(
                f"{where}: contrast_hu: diffusion models decide the contrast by themselves; set it to null"
            )
        needs_bank = '"source": "bank"' if record.get("source") == "bank" else '"ring" above 0' if live.ring else ""
        if needs_bank and not record.get("bank_folder"):
            raise InputError(f"{where}: bank_folder is missing; with {needs_bank} it names the folder of lesion files")
        steps = [
            _curriculum_step(step, f"{where}: curriculum[{i}]") for i, step in enumerate(record.get("curriculum", ()))
        ]
        if any(a.from_epoch >= b.from_epoch for a, b in pairwise(steps)):
            raise InputError(f"{where}: curriculum has steps that are not in the order of their from_epoch; sort them")
        organs = tuple(_organ(organ, f"{where}: organs[{i}]") for i, organ in enumerate(record["organs"]))
        names = [organ.name for organ in organs]
        if len(set(names)) < len(names):
            raise InputError(f"{where}: organs have the names {names}; each must have its own")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        if isinstance(record.get("shares"), dict):
            values["shares"] = _shares(record["shares"], f"{where}: shares")
        return cls(**{**values, "organs": organs, "live": live, "curriculum": tuple(steps)})


def _with_shares(record: Any, where: str) -> Any:
    """Datasets that were prepared before there were shares have `synthetic_probability`, of the rest of real cases."""
    if not isinstance(record, dict) or "synthetic_probability" not in record or "shares" in record:
        return record
    Checker(record, where).value("synthetic_probability", is_share, "a number from 0 to 1")
    rest = {key: value for key, value in record.items() if key != "synthetic_probability"}
    synthetic = record["synthetic_probability"]
    return rest | {"shares": {"real": 1 - synthetic, "synthetic": synthetic, "healthy": 0.0}}


def _shares(record: Any, where: str) -> SampleShares:
    check_keys(record, SampleShares, where)
    check = Checker(record, where)
    for kind in ("real", "synthetic", "healthy"):
        check.value(kind, is_share, "a number from 0 to 1")
    try:
        return SampleShares(**record)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _curriculum_step(record: Any, where: str) -> CurriculumStep:
    check_keys(record, CurriculumStep, where)
    check = Checker(record, where)
    check.value("from_epoch", lambda v: is_integer(v) and v >= 0, "an integer of at least 0")
    check.value("size_weights", _are_size_weights, f"shares of {', '.join(SIZE_BANDS_MM)}, some above 0")
    return CurriculumStep(**record)


def _organ(record: Any, where: str) -> Organ:
    check_keys(record, Organ, where)
    check = Checker(record, where)

    def labels(value: Any) -> bool:
        return isinstance(value, list) and all(is_integer(label) and label > 0 for label in value)

    check.value("name", is_plain_name, "a name of 1 to 64 letters, digits, _ and -, the first one no -")
    check.value("organ_labels", lambda v: labels(v) and len(v) > 0, "a list of label values above 0")
    check.value("avoid_labels", labels, "a list of label values above 0")
    check.value("tumor_label", lambda v: is_integer(v) and v > 0, "a label value above 0")
    check.value("wall_mm", lambda v: v is None or (is_number(v) and 0 <= v <= 50), "null, or a number from 0 to 50")
    if record["tumor_label"] in record["organ_labels"]:
        raise InputError(f"{where}: tumor_label {record['tumor_label']} is also an organ label; they must differ")
    return Organ(
        record["name"],
        tuple(record["organ_labels"]),
        record["tumor_label"],
        # The tumor's own label marks real tumors too: they are avoided whether the file says so or not.
        tuple(sorted({*record.get("avoid_labels", ()), record["tumor_label"]})),
        record.get("wall_mm"),
    )


def _good_contrast(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(is_number(hu) and -300 <= hu <= 300 for hu in value)
        and value[0] <= value[1]
    )


def _good_ratio(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value <= MOST_CONTRAST_TO_NOISE)


def _good_axes(value: Any) -> bool:
    return isinstance(value, list) and all(axis in MIRROR_AXES and value.count(axis) == 1 for axis in value)


def _are_size_weights(value: Any) -> bool:
    """An object with shares of size classes, some above 0."""
    return (
        isinstance(value, dict)
        and set(value) <= set(SIZE_BANDS_MM)
        and all(is_number(share) and share >= 0 for share in value.values())
        and sum(value.values()) > 0
    )
