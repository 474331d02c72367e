"""Banks that were made from another version of a case, and weights that do not fit what they are to draw into."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor.checks.finding import ERROR, Finding
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.grid import PreparedGrid
from nnunet_difftumor.prepared.made_from.records import window_hu
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.prepared.pools import PooledDataset
from nnunet_difftumor.synthesis.lesion_file import SUFFIX, read_lesion

_TOLERANCE_HU = 1.0


def stale_bank(
    bank: Path, arrays: Path, cases: Collection[str], *, plans: Mapping[str, Any], configuration: str
) -> list[Finding]:
    """Cases whose newest lesion was made from other voxels than the case has now; one lesion of each is read.

    Args:
        bank: folder of lesion files.
        arrays: folder of the preprocessed cases.
        cases: the bases.
        plans, configuration: of the arrays.
    """
    grid = PreparedGrid.from_plans(plans, configuration)
    dataset = PooledDataset(str(arrays), list(cases))
    findings = []
    for case in cases:
        files = sorted((bank / case).glob(f"[!.]*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        if not files:
            continue
        try:
            read_lesion(files[-1], OverlayCase.of(case, dataset.load_case(case), grid), same_scan=True)
        except InputError as error:
            do = f"delete {bank / case}, and fill the bank again: `difftumor synthesize --bank`"
            findings.append(Finding("stale-bank", case, ERROR, str(error), do))
    return findings


def unfit_weights(config: DiffTumorConfig, plans: Mapping[str, Any]) -> list[Finding]:
    """Of live tumors: weights that are missing, or of another organ, autoencoder or window. The codes alone are read.

    Args:
        config: settings of the dataset.
        plans: nnU-Net's.
    """
    if not config.needs_server:
        return []
    from nnunet_difftumor.synthesis.networks.weights import check_codebook

    do = 'name the folder of weights that belong together, with "weights_folder" in "live" of difftumor.json'
    low, high = window_hu(plans)
    findings = []
    try:
        choice = config.live.choose_renderer(organs=[organ.name for organ in config.organs], sizes=config.sizes())
        for weights in {found.organ: found for found in choice.weights.values()}.values():
            for stage in choice.stages:
                check_codebook(weights, stage)
                seen_low, seen_high = weights.description(stage).volumes.window_hu
                if seen_low < low - _TOLERANCE_HU or seen_high > high + _TOLERANCE_HU:
                    seen = (
                        f"{weights.folder}: the {stage} model of {weights.organ} sees {seen_low:g} to {seen_high:g} "
                        f"HU, but preprocessing cuts off what is not within {low:g} to {high:g}"
                    )
                    findings.append(Finding("unfit-weights", "", ERROR, seen, do))
    except InputError as error:
        findings.append(Finding("unfit-weights", "", ERROR, str(error), do))
    return findings
