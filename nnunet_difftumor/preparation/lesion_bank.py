"""The lesion bank, written beforehand: lesion files for every base of a prepared dataset, to train on.

Any number of processes, on one machine or many, may fill one folder without knowing of each other. A lesion is a
function of seed, case and number alone, and files appear whole: what two processes make at once is the same file (drawn
fast on a GPU but for rounding, which neighbours in a batch change).
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.checks.gate import check_before
from nnunet_difftumor.errors import InputError, some
from nnunet_difftumor.files import free_bytes, in_words_of_bytes
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.bank_folder import BankFolder
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.dataset import prepared_folder, read_plans
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.pools import PooledDataset
from nnunet_difftumor.prepared.roles import label_free_roles, roles_with_real_cases
from nnunet_difftumor.synthesis.lesion_file import SUFFIX
from nnunet_difftumor.synthesis.look.organ_names import notes_on_organ
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.networks.modes import EXACT, FAST, usual_mode
from nnunet_difftumor.synthesis.patch import RenderedTumor, Site, site_of
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.renderers import RendererChoice, choose_renderer
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.visibility import (
    LEAST_CONTRAST_TO_NOISE,
    check_minimum,
    check_reach,
    is_faint,
    too_faint,
)

if TYPE_CHECKING:
    from nnunet_difftumor.synthesis.networks.sketch import Sketch

# A tumor that finds no room is drawn again, with another size and in another organ if there is one.
_DRAWS = 3
# Lesions that a GPU draws together.
_ON_GPU = 8
# Cases that a dry run names.
_MOST_CASES = 20
# Enters the random numbers: no lesion is one that training or validation draws with the same seed.
_STREAM = 13


@dataclass(frozen=True)
class BankReport:
    """What a call found and did.

    Attributes:
        folder: of the bank.
        made: lesions that this call wrote.
        kept: lesions that were there, from before or from another process.
        refused: lesions for which there was no room, or that were too faint, now or before.
        faint: of those made, how many nobody could see.
    """

    folder: Path
    made: int
    kept: int
    refused: int
    faint: int = 0


def make_bank(
    dataset_id: int,
    *,
    per_case: int,
    output: str | Path | None = None,
    configuration: str = "3d_fullres",
    renderer: str = "handcrafted",
    weights: Path | None = None,
    weights_organ: str | Mapping[str, str] | None = None,
    device: str = "cpu",
    fast: bool | None = None,
    sampler_steps: int | None = None,
    minimum_contrast_to_noise: float | None = None,
    seed: int | None = None,
    dry_run: bool = False,
    report: Callable[[str], None] = print,
) -> BankReport:
    """Renders lesions for every base of a prepared dataset, those that are not there yet.

    Organs, preset, sizes and contrast are those of the dataset's difftumor.json.

    Args:
        dataset_id: of a dataset in nnUNet_preprocessed that `difftumor prepare` made.
        per_case: lesions of each base, those included that are there.
        output: folder; gets `bank.json` first, and `CASE/NUMBER.lesion.npz`, or `CASE/NUMBER.refused.json` where no
            tumor found room; None: `difftumor_bank/DATA_IDENTIFIER` in the preprocessed dataset.
        configuration: whose preprocessed cases are the bases.
        renderer: "handcrafted", or "diffusion": shape and place by the preset, what is inside by a diffusion model.
        weights: folder of the diffusion models; None: `difftumor_weights` in the folder that nnUNet_results names.
        weights_organ: whose diffusion models draw in all organs, or that by the organ's name; None: as "weights_organs"
            in "live" of difftumor.json says, and elsewhere the organs' own.
        device: of the diffusion models, cpu or cuda.
        fast: whether they draw in bfloat16, with noise made on the device; None: on cuda.
        sampler_steps: of the models of late tumors, which sample by DDIM; None: as their weights say.
        minimum_contrast_to_noise: lesions with less contrast, in units of the noise around, are refused and drawn
            again; None: as difftumor.json says.
        seed: of everything random; None: that of difftumor.json.
        dry_run: only say what would be made, and where; nothing is written, and no diffusion model is loaded.
        report: gets lines: what is wrong with the data; at the end what was made, and how far its tumors differ from
            the tissue around.

    Raises:
        InputError: if the dataset was not prepared or has no base, diffusion models are missing or do not fit, the
            folder holds a bank of other settings, or cannot be written; if the data are not what the dataset was
            prepared from, unless `on_wrong_data` in difftumor.json is "warn".
    """
    _check_numbers(per_case=per_case, seed=seed, minimum_contrast_to_noise=minimum_contrast_to_noise)
    dataset_folder = prepared_folder(dataset_id)
    changes = {"seed": seed, "minimum_contrast_to_noise": minimum_contrast_to_noise}
    synthesis = _synthesis(dataset_folder, configuration, renderer=renderer, changes=changes)
    cases, config = _bases(synthesis), synthesis.config
    choice = choose_renderer(
        renderer,
        organs=[organ.name for organ in config.organs],
        sizes=[size for size, share in _mix(config).items() if share > 0],
        weights=weights,
        weights_organ=config.live.weights_organs if weights_organ is None else weights_organ,
        device=device,
        mode=usual_mode(device) if fast is None else FAST if fast else EXACT,
        sampler_steps=sampler_steps,
    )
    notes = [note for organ in config.organs for note in notes_on_organ(organ, config.preset)]
    for note in (*notes, *choice.notes()):
        report(f"NOTE: {note}")
    check_before(
        "the bank",
        dataset_folder,
        plans=synthesis.plans,
        configuration=configuration,
        config=synthesis.config,
        report=report,
        remember=not dry_run,
    )
    folder = dataset_folder / "difftumor_bank" / synthesis.folder.name if output is None else Path(output)
    bank = BankFolder(folder.absolute(), cases, per_case)
    record = _record(synthesis, choice)
    bank.check(record)
    stale = {finding.case: finding.seen for finding in synthesis.stale_bank(bank.folder, cases)}
    for case, seen_of_it in stale.items():
        report(f"{case}: its lesions {'would be' if dry_run else 'are'} made again ({seen_of_it})")
    if dry_run:
        return _foretold(bank, cases, per_case * len(cases), stale, report)
    for case in stale:
        bank.forget(case)
    start = time.monotonic()
    seen = _fill(bank, record, lambda: _LesionMaker(synthesis, cases=cases, choice=choice))
    made, refused = sum(map(len, seen.values())), bank.count_refused()
    faint = sum(one.faint for found in seen.values() for one in found)
    result = BankReport(bank.folder, made, per_case * len(cases) - refused - made, refused, faint)
    speed = f", {made / max(time.monotonic() - start, 1e-3):.2g} a second" if made else ""
    why = "no room" if synthesis.config.minimum_contrast_to_noise is None else "no room, or too faint"
    report(
        f"{result.folder}: {made} lesions made, {result.kept} kept, {refused} refused ({why}), for {len(cases)} "
        f"cases{speed}"
    )
    if made:
        report(_contrast_note(seen))
    return result


def _foretold(
    bank: BankFolder, cases: Sequence[str], lesions: int, stale: Collection[str], report: Callable[[str], None]
) -> BankReport:
    """What a bank has, and what is missing; `stale` are cases whose lesions would be made again."""
    missing, refused = bank.missing(without=stale), bank.count_refused(without=stale)
    kept = lesions - len(missing) - refused
    counts = Counter(case for case, _ in missing)
    for case, count in list(counts.items())[:_MOST_CASES]:
        report(f"{case}: {count} missing")
    if len(counts) > _MOST_CASES:
        report(f"... and of {len(counts) - _MOST_CASES} more cases")
    free = in_words_of_bytes(free_bytes(bank.folder))
    report(
        f"{bank.folder}/CASE/NUMBER{SUFFIX}: {len(missing)} of {lesions} lesions are missing and would be made, {kept} "
        f"are there, {refused} were refused before, for {len(cases)} cases; {free} are free there. Dry run: nothing "
        "was written"
    )
    return BankReport(bank.folder, 0, kept, refused)


def _check_numbers(*, per_case: int, seed: int | None, minimum_contrast_to_noise: float | None) -> None:
    if per_case < 1:
        raise InputError(f"`per_case` is {per_case}, expected at least 1")
    if seed is not None and seed < 0:
        raise InputError(f"`seed` is {seed}, expected at least 0")
    check_minimum(minimum_contrast_to_noise)


def _synthesis(
    dataset_folder: Path, configuration: str, *, renderer: str, changes: Mapping[str, Any]
) -> TrainingSynthesis:
    """The synthetic side of a training on all folds, with hand-crafted tumors: whatever the training's source is or
    will be, here tumors are placed, for which bases must have statistics.
    """
    plans, dataset_json = read_plans(dataset_folder, configuration)
    config = DiffTumorConfig.load(dataset_folder / FILE_NAME)
    changes = {key: value for key, value in changes.items() if value is not None}
    config = replace(config, source="handcrafted", **changes)
    if renderer == "diffusion":
        config = _without_contrast(config, dataset_folder)
    return TrainingSynthesis(
        dataset_folder, plans, dataset_json=dataset_json, configuration=configuration, fold="all", config=config
    )


def _mix(config: DiffTumorConfig) -> Mapping[str, float]:
    return PRESETS[config.preset].weights if config.size_weights is None else config.size_weights


def _record(synthesis: TrainingSynthesis, choice: RendererChoice) -> dict[str, Any]:
    """What `bank.json` holds: all that voxels depend on besides scan, spec and the device's rounding."""
    config = synthesis.config
    return {
        "version": __version__,
        "dataset": synthesis.dataset_folder.name,
        "plans": PLANS_NAME,
        "data_identifier": synthesis.folder.name,
        "spacing_mm": list(synthesis.grid.spacing_mm),
        "organs": [organ.to_dict() for organ in config.organs],
        "preset": config.preset,
        "size_weights": dict(_mix(config)),
        "contrast_hu": config.contrast_hu,
        # Not in banks from before there were such limits, which have no effect.
        **({"minimum_contrast_to_noise": least} if (least := config.minimum_contrast_to_noise) is not None else {}),
        **({"clear_of_vessels": True} if config.clear_of_vessels else {}),
        "seed": config.seed,
        "renderer": choice.name,
        "weights": choice.files(),
        **(
            {"weights_organs": choice.weights_organs(), "mode": choice.mode, "sampler_steps": choice.sampler_steps}
            if choice.weights
            else {}
        ),
    }


class _Seen(NamedTuple):
    """How a lesion that was made differs from the tissue around: by how much, and whether nobody could see it."""

    contrast_hu: float
    faint: bool


def _fill(
    bank: BankFolder, record: Mapping[str, Any], open_maker: "Callable[[], _LesionMaker]"
) -> dict[str, list[_Seen]]:
    """Makes what is missing; returns how what was made is seen, by case."""
    missing = bank.missing()
    seen: dict[str, list[_Seen]] = defaultdict(list)
    if not missing:
        return seen
    # Opens the weights: nothing is written if they are damaged.
    maker = open_maker()
    bank.claim(record)
    # Processes that work on one bank rarely meet, and the order changes no lesion.
    order = np.random.default_rng(int.from_bytes(os.urandom(16), "little")).permutation(len(missing))
    with tqdm(total=len(missing), unit="lesion", disable=None) as progress:
        for first in range(0, len(order), maker.batch):
            part = [missing[position] for position in order[first : first + maker.batch]]
            drafts = [maker.draft(*place) for place in part if not bank.has(*place)]
            for draft, tumor in zip(drafts, maker.finished(drafts), strict=True):
                if tumor is None:
                    bank.write_refused(draft.name, draft.number, draft.reasons)
                else:
                    bank.write(draft.name, draft.number, tumor, draft.case)
                    # Its mask is not empty.
                    seen[draft.name].append(_Seen(tumor.measured_contrast_hu() or 0.0, is_faint(tumor)))
            progress.update(len(part))
    return seen


def _contrast_note(seen: Mapping[str, Sequence[_Seen]]) -> str:
    """How far lesions differ from the tissue around, in words."""
    values = [one.contrast_hu for found in seen.values() for one in found]
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).round() + 0.0  # no -0
    note = f"contrast of those made: median {median:.0f} HU, nine of ten from {low:.0f} to {high:.0f} HU"
    faint = {case: [one.faint for one in found] for case, found in seen.items()}
    count = sum(map(sum, faint.values()))
    if count:
        mostly = sorted(case for case, found in faint.items() if sum(found) > 0.5 * len(found))
        note += f"; {count} of {len(values)} have less contrast than {LEAST_CONTRAST_TO_NOISE:g} times the noise, "
        note += "hardly to be seen"
        note += f", most lesions of {some(mostly)} among them" if mostly else ""
    return note


def _without_contrast(config: DiffTumorConfig, dataset_folder: Path) -> DiffTumorConfig:
    if config.contrast_hu is not None and not config.handcrafted_share:  # which may be what it is meant for
        raise InputError(
            f"{dataset_folder / FILE_NAME}: contrast_hu: diffusion models decide the contrast by themselves; set it to "
            "null"
        )
    return replace(config, contrast_hu=None)


def _bases(synthesis: TrainingSynthesis) -> tuple[str, ...]:
    """The bases of all folds, sorted."""
    splits = synthesis.splits()
    if any(split["train"] for split in splits):
        roles = roles_with_real_cases(splits, "all", real_as_bases=synthesis.config.real_cases_as_bases)
    else:
        roles = label_free_roles(splits, "all")
    return synthesis.with_usable_bases(roles).bases


@dataclass(frozen=True, eq=False)
class _Draft:
    """A lesion that has a place.

    Attributes:
        name, number: of the case, and of the lesion in it.
        case: as it is.
        rng, draws: what the next tumor is drawn from, and how many may be drawn yet.
        tumor: rendered; or None.
        site, sketch: of one that is still to be drawn; or None. Without any of these there is no room for it.
        reasons: why drawn tumors were not taken.
    """

    name: str
    number: int
    case: OverlayCase
    rng: np.random.Generator
    draws: int
    reasons: list[str]
    tumor: RenderedTumor | None = None
    site: Site | None = None
    sketch: "Sketch | None" = None


class _LesionMaker:
    """Makes lesions of a prepared dataset.

    Args:
        synthesis: of the dataset, with the settings of the bank.
        cases: the bases.
        choice: what draws.

    Attributes:
        batch: lesions to be drawn together: one where neighbours must not even change its rounding, several on a GPU.
    """

    def __init__(self, synthesis: TrainingSynthesis, *, cases: Sequence[str], choice: RendererChoice) -> None:
        config = synthesis.config
        self._seed, self._grid, self._statistics = config.seed, synthesis.grid, synthesis.statistics
        self._dataset = PooledDataset(str(synthesis.folder), cases)
        self._choice, self._least_contrast_to_noise = choice, config.minimum_contrast_to_noise
        # Of a choice with weights it is one that draws sketches.
        self._renderer: Any = choice.open()
        self.batch = _ON_GPU if choice.weights and choice.mode == FAST and choice.device == "cuda" else 1
        self._samplers = [
            TumorSampler(
                organ,
                config.preset,
                contrast_hu=config.contrast_hu,
                weights=config.size_weights,
                clear_of_vessels=config.clear_of_vessels,
            )
            for organ in config.organs
        ]
        self._cases = {organ.name: self._statistics.cases(organ.name) for organ in config.organs}

    def draft(self, name: str, number: int) -> _Draft:
        """Places a lesion, and renders it if no networks are needed."""
        rng = np.random.default_rng((self._seed, crc32(name.encode()), number, _STREAM))
        case = OverlayCase.of(name, self._dataset.load_case(name), self._grid)
        return self._next(_Draft(name, number, case, rng, _DRAWS, []))

    def _next(self, draft: _Draft) -> _Draft:
        """The next tumor of a lesion that has room."""
        name, case, rng, reasons = draft.name, draft.case, draft.rng, draft.reasons
        samplers = [sampler for sampler in self._samplers if name in self._cases[sampler.organ.name]]
        for draws in reversed(range(draft.draws)):
            sampler = samplers[int(rng.integers(len(samplers)))]
            organ = sampler.organ
            found = sampler.sample(case, self._statistics.load(name, organ.name), rng)
            if not isinstance(found, Placement):
                reasons.append(f"{organ.name}, {found.size_class}: {found.reason}")
                continue
            spec = self._choice.adapted(found.spec)
            patch = patch_of(case, spec, organ, box=self._renderer.region(case, spec))
            if self._choice.weights:
                site = site_of(patch, spec)
                if site.mask.any():
                    return replace(draft, draws=draws, site=site, sketch=self._renderer.sketch(site, patch), tumor=None)
            else:
                tumor = self._renderer.render([patch], [spec])[0]
                if tumor.mask.any():
                    return replace(draft, draws=draws, tumor=tumor)
            reasons.append(f"{organ.name}, {spec.size_class}: nothing of it has room")
        return replace(draft, draws=0, tumor=None, site=None, sketch=None)

    def finished(self, drafts: Sequence[_Draft]) -> list[RenderedTumor | None]:
        """Their tumors, drawn together; None where there is no room, or every tumor drawn is too faint.

        Raises:
            InputError: if a tumor changes voxels out of its reach.
        """
        tumors: list[RenderedTumor | None] = [None] * len(drafts)
        left = dict(enumerate(drafts))
        while left:
            for number, tumor in zip(list(left), self._rendered(list(left.values())), strict=True):
                draft = left.pop(number)
                if tumor is None:
                    continue
                check_reach(tumor, draft.case)
                reason = too_faint(tumor, self._least_contrast_to_noise)
                if reason is None:
                    tumors[number] = tumor
                else:
                    draft.reasons.append(f"{tumor.spec.organ}, {tumor.spec.size_class}: {reason}")
                    left[number] = self._next(draft)
        return tumors

    def _rendered(self, drafts: Sequence[_Draft]) -> list[RenderedTumor | None]:
        """Their tumors; None where there is no room."""
        waiting = [draft for draft in drafts if draft.sketch is not None]
        drawn = iter(self._renderer.draw([draft.sketch for draft in waiting]) if waiting else [])
        return [draft.tumor if draft.site is None else draft.site.finished(next(drawn)) for draft in drafts]
