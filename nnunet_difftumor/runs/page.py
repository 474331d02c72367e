"""A training's page: what its synthesis did, what nnU-Net reached, with which settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.pages import Page
from nnunet_difftumor.prepared.config import FILE_NAME
from nnunet_difftumor.runs.monitor import epoch_columns
from nnunet_difftumor.runs.run_record import run_path
from nnunet_difftumor.runs.synthesis_log import PROGRESS_PICTURE, SAMPLES_PICTURE, read_summaries

REPORT = "report.html"
_EPOCHS = 30
_PICTURES = {
    SAMPLES_PICTURE: "The first batch with synthetic tumors, as the network got it",
    PROGRESS_PICTURE: "Synthesis, epoch by epoch",
    "progress.png": "nnU-Net's losses and pseudo Dice, epoch by epoch",
}


def write_page(folder: str | Path) -> str | None:
    """Writes `report.html` from what lies in a run's folder, atomically; what is missing there is left out.

    Args:
        folder: of the run's fold.

    Returns:
        What went wrong, in a line; None if all is well. It raises nothing: no page is worth a training.
    """
    folder = Path(folder).absolute()
    try:
        _page(folder).write(folder / REPORT)
    except Exception as error:
        return f"{folder / REPORT} could not be written ({type(error).__name__}: {error})"
    return None


def _page(folder: Path) -> Page:
    run = load_json(run_path(folder, 0))
    dataset = folder.parent.parent.name
    page = Page(
        f"{dataset}, {folder.name.replace('_', ' ')}", f"Trained with {folder.parent.name.replace('__', ', ')}."
    )
    _add_validation(page, folder / "validation" / "summary.json")
    page.heading("Synthetic tumors")
    for rank, summaries in read_summaries(folder).items():
        columns = epoch_columns(summaries, most=_EPOCHS)
        page.text(
            f"Rank {rank}: {len(summaries)} epochs" + (f", the last {_EPOCHS}" if len(summaries) > _EPOCHS else "")
        )
        page.table(list(columns), list(zip(*columns.values(), strict=True)))
    for name, caption in _PICTURES.items():
        if (folder / name).is_file():
            page.picture(folder / name, caption)
    page.heading("Commands")
    trainer, plans, configuration = folder.parent.name.split("__")
    page.commands(
        [
            f"difftumor monitor {folder}",
            f"difftumor replay {folder} --sample 0",
            f"nnUNetv2_predict -i INPUT_FOLDER -o OUTPUT_FOLDER -d {int(dataset[7:10])} -c {configuration} "
            f"-f {folder.name.removeprefix('fold_')} -tr {trainer} -p {plans}",
            f"difftumor export {folder.parent}",
        ]
    )
    page.heading("Settings")
    if (folder / FILE_NAME).is_file():
        page.facts(load_json(folder / FILE_NAME))
    page.folded("The run", run)
    return page


def _add_validation(page: Page, path: Path) -> None:
    """Label values, or those of regions, with nnU-Net's mean Dice."""
    if not path.is_file():
        return
    summary: Mapping[str, Any] = load_json(path)
    page.heading("Validation")
    if "difftumor_validation" in summary:
        page.warning(summary["difftumor_validation"])
    means = [*summary["mean"].items(), ("foreground", summary["foreground_mean"])]
    page.table(("label", "Dice, mean over the cases"), [(label, _dice(metrics)) for label, metrics in means])


def _dice(metrics: Mapping[str, Any]) -> float | None:
    """None where nnU-Net has NaN: no case has the label."""
    dice = metrics["Dice"]
    return None if dice is None or dice != dice else round(dice, 3)
