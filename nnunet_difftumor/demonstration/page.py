"""The demo's page: what training changed, the pictures, and every command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_difftumor.demonstration.scores import MIN_IOU, rows
from nnunet_difftumor.pages import Page

REPORT = "report.html"


def write_page(folder: Path, manifest: Mapping[str, Any], *, caution: list[str]) -> None:
    """Writes `report.html` into the demo's folder, from what lies there.

    Args:
        folder: of the demo, complete.
        manifest: its content.
        caution: lines that say why the figures are better than those of other patients would be.
    """
    scores, settings = manifest["scores"], manifest["settings"]
    page = Page(
        "From CT scans to a trained network",
        f"{settings['epochs']} epochs of {settings['iterations_per_epoch']} iterations on a CPU: enough to see that "
        "everything works, far from what nnU-Net's own schedule reaches.",
    )
    page.heading("What training changed")
    page.text(f"{len(manifest['test_cases'])} test cases: {', '.join(manifest['test_cases'])}.")
    for line in caution:
        page.warning(line)
    page.table(("", *scores["dice"]), rows(scores["dice"], scores["tumors"]))
    page.text(
        f"A tumor counts as found if a predicted one overlaps with it: intersection over union of at least {MIN_IOU:g}."
    )
    page.picture(folder / "predictions.png", "The test cases: truth, untrained network, trained network")
    page.heading("Synthetic tumors")
    for picture in sorted(folder.glob("synthetic/*/preview.png")):
        page.picture(picture, f"{picture.parent.name}, before and after")
        page.link(f"Slices to scroll through: {picture.parent.name}", picture.parent.relative_to(folder) / REPORT)
    page.picture(folder / "training_samples.png", "A training batch, as the network got it")
    page.heading("Commands")
    page.text("All of them, in their order, as commands.sh has them.")
    page.commands((folder / "commands.sh").read_text().splitlines())
    page.heading("Settings")
    page.facts(settings)
    page.folded(
        "Versions, times in s",
        {**manifest["versions"], **{f"step {name}": step["seconds"] for name, step in manifest["steps"].items()}},
    )
    page.write(folder / REPORT)
