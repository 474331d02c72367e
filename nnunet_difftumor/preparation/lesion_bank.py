"""The lesion bank, written beforehand: lesion files for every base of a prepared dataset, to train on.

Any number of processes, on one machine or many, may fill one folder without knowing of each other. A lesion is a
function of seed, case and number alone, and files appear whole: what two processes make at once is the same file.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.training_synthesis import TrainingSynthesis
from nnunet_difftumor.prepared.bank_folder import BankFolder
from nnunet_difftumor.prepared.config import FILE_NAME, PLANS_NAME, DiffTumorConfig
from nnunet_difftumor.prepared.dataset import prepared_folder, read_plans
from nnunet_difftumor.prepared.orientation import directions
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.pools import PooledDataset
from nnunet_difftumor.prepared.roles import label_free_roles, roles_with_real_cases
from nnunet_difftumor.synthesis.bank_renderers import BankRenderers, choose_bank_renderers
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import LEAST_CONTRAST_HU
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import patch_of

# A tumor that finds no room is drawn again, with another size and in another organ if there is one.
_DRAWS = 3
# Enters the random numbers: no lesion is one that training or validation draws with the same seed.
_STREAM = 13


@dataclass(frozen=True)
class BankReport:
    """What a call found and did.

    Attributes:
        folder: of the bank.
        made: lesions that this call wrote.
        kept: lesions that were there, from before or from another process.
        refused: lesions for which there was no room, now or before.
    """

    folder: Path
    made: int
    kept: int
    refused: int


def make_bank(
    dataset_id: int,
    *,
    per_case: int,
    output: str | Path | None = None,
    configuration: str = "3d_fullres",
    renderer: str = "handcrafted",
    weights: Path | None = None,
    weights_organ: str | None = None,
    device: str = "cpu",
    seed: int | None = None,
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
        weights_organ: whose diffusion models draw in organs that have none of their own.
        device: of the diffusion models, cpu or cuda.
        seed: of everything random; None: that of difftumor.json.
        report: gets lines at the end: what was made, and how far its tumors differ from the tissue around.

    Raises:
        InputError: if the dataset was not prepared or has no base, diffusion models are missing or do not fit, the
            folder holds a bank of other settings, or cannot be written.
    """
    if per_case < 1:
        raise InputError(f"`per_case` is {per_case}, expected at least 1")
    dataset_folder = prepared_folder(dataset_id)
    plans, dataset_json = read_plans(dataset_folder, configuration)
    synthesis = TrainingSynthesis(
        dataset_folder, plans, dataset_json=dataset_json, configuration=configuration, fold="all"
    )
    # Whatever the training's source is, or will be: here tumors are placed, for which bases must have statistics.
    config = replace(synthesis.config, source="handcrafted", seed=synthesis.config.seed if seed is None else seed)
    if renderer == "diffusion":
        config = _without_contrast(config, dataset_folder)
    synthesis.config = config
    cases = _bases(synthesis)
    mix = PRESETS[config.preset].weights if config.size_weights is None else config.size_weights
    renderers = choose_bank_renderers(
        renderer,
        [organ.name for organ in config.organs],
        sizes=[size for size, share in mix.items() if share > 0],
        weights=weights,
        weights_organ=weights_organ,
        device=device,
    )
    spacing_mm = tuple(float(value) for value in PlansManager(plans).get_configuration(configuration).spacing)
    folder = dataset_folder / "difftumor_bank" / synthesis.folder.name if output is None else Path(output)
    bank = BankFolder(folder.absolute(), cases, per_case)
    record = {
        "version": __version__,
        "dataset": dataset_folder.name,
        "plans": PLANS_NAME,
        "data_identifier": synthesis.folder.name,
        "spacing_mm": list(spacing_mm),
        "organs": [asdict(organ) for organ in config.organs],
        "preset": config.preset,
        "size_weights": dict(mix),
        "contrast_hu": config.contrast_hu,
        "seed": config.seed,
        **renderers.record(),
    }
    bank.check(record)
    missing, contrasts_hu = bank.missing(), defaultdict(list)
    if missing:
        # Opens the weights: nothing is written if they are damaged.
        maker = _LesionMaker(synthesis, plans, spacing_mm=spacing_mm, cases=cases, renderers=renderers)
        bank.claim(record)
        # Processes that work on one bank rarely meet, and the order changes no lesion.
        order = np.random.default_rng(int.from_bytes(os.urandom(16), "little")).permutation(len(missing))
        for position in tqdm(order, unit="lesion", disable=None):
            case, number = missing[position]
            if bank.has(case, number):
                continue
            scan, tumor, reasons = maker.make(case, number)
            if tumor is None:
                bank.write_refused(case, number, reasons)
            else:
                bank.write(case, number, tumor, scan)
                contrasts_hu[case].append(tumor.measured_contrast_hu())
    made, refused = sum(map(len, contrasts_hu.values())), bank.count_refused()
    result = BankReport(bank.folder, made, per_case * len(cases) - refused - made, refused)
    report(
        f"{result.folder}: {made} lesions made, {result.kept} kept, {refused} refused (no room), for {len(cases)} cases"
    )
    if made:
        report(_contrast_note(contrasts_hu))
    return result


def _contrast_note(contrasts_hu: Mapping[str, Sequence[float]]) -> str:
    """How far lesions differ from the tissue around, in words; from their measured contrast by case."""
    values = np.concatenate(list(contrasts_hu.values()))
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).round() + 0.0  # no -0
    note = f"contrast of those made: median {median:.0f} HU, nine of ten from {low:.0f} to {high:.0f} HU"
    faint = {case: np.abs(found) < LEAST_CONTRAST_HU for case, found in contrasts_hu.items()}
    count = sum(int(found.sum()) for found in faint.values())
    if count:
        mostly = sorted(case for case, found in faint.items() if found.mean() > 0.5)
        note += f"; {count} of {len(values)} are within {LEAST_CONTRAST_HU:.0f} HU of the tissue around, hard to see"
        note += (
            f", most lesions of {', '.join(mostly[:5])}{', ...' if len(mostly) > 5 else ''} among them"
            if mostly
            else ""
        )
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


class _LesionMaker:
    """Makes single lesions of a prepared dataset.

    Args:
        synthesis: of the dataset, with the settings of the bank.
        plans: nnU-Net's plans.
        spacing_mm: of the preprocessed configuration, (z, y, x).
        cases: the bases.
        renderers: for the organs.
    """

    def __init__(
        self,
        synthesis: TrainingSynthesis,
        plans: Mapping[str, Any],
        *,
        spacing_mm: tuple[float, ...],
        cases: Sequence[str],
        renderers: BankRenderers,
    ) -> None:
        config = synthesis.config
        self._seed, self._intensity, self._statistics = config.seed, synthesis.intensity, synthesis.statistics
        self._dataset = PooledDataset(str(synthesis.folder), cases)
        self._transpose_forward, self._spacing_mm = plans["transpose_forward"], spacing_mm
        self._renderers, self._opened = renderers, renderers.open()
        self._samplers = [
            TumorSampler(organ, config.preset, contrast_hu=config.contrast_hu, weights=config.size_weights)
            for organ in config.organs
        ]
        self._cases = {organ.name: self._statistics.cases(organ.name) for organ in config.organs}

    def make(self, name: str, number: int) -> tuple[OverlayCase, RenderedTumor | None, list[str]]:
        """The case as it is, the lesion in it, None if there is no room, and why drawn tumors were not taken."""
        rng = np.random.default_rng((self._seed, crc32(name.encode()), number, _STREAM))
        samplers = [sampler for sampler in self._samplers if name in self._cases[sampler.organ.name]]
        case, reasons = self._case(name), []
        for _ in range(_DRAWS):
            sampler = samplers[int(rng.integers(len(samplers)))]
            organ = sampler.organ
            found = sampler.sample(case, self._statistics.load(name, organ.name), rng)
            if not isinstance(found, Placement):
                reasons.append(f"{organ.name}, {found.size_class}: {found.reason}")
                continue
            spec, renderer = self._renderers.adapted(found.spec), self._opened[organ.name]
            tumor = renderer.render([patch_of(case, spec, organ, box=renderer.region(case, spec))], [spec])[0]
            if tumor.mask.any():
                return case, tumor, reasons
            reasons.append(f"{organ.name}, {spec.size_class}: nothing of it has room")
        return case, None, reasons

    def _case(self, name: str) -> OverlayCase:
        data, seg, _, properties = self._dataset.load_case(name)
        # Hand-crafted tumors need no direction, and not every reader of images gives one.
        direction = directions(properties, self._transpose_forward) if self._renderers.weights else None
        return OverlayCase(name, data, seg, spacing_mm=self._spacing_mm, intensity=self._intensity, direction=direction)
