"""The demo: steps in a fixed order, each done once, and what they leave."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_difftumor import __version__
from nnunet_difftumor.dataset_conversion.folder import parse_label
from nnunet_difftumor.demonstration.journal import Journal
from nnunet_difftumor.demonstration.page import REPORT, write_page
from nnunet_difftumor.demonstration.steps import Steps
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import check_folder, only_writer

# Scans, raw dataset, synthetic tumors.
_STEPS_WITHOUT_TRAINING = 3


def demo(
    out: str | Path = "demo_out",
    *,
    data: str | Path | None = None,
    labels: Sequence[str] = ("liver=1", "liver_tumor=2"),
    epochs: int = 8,
    iterations_per_epoch: int = 80,
    seed: int = 0,
    training: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """From CT scans to tumors synthesized, a small network trained, and what the training gained, on a CPU.

    Args:
        out: folder for everything. What is done there already is kept, so that an interrupted call resumes.
        data: folder of cases as for `difftumor convert folder`; None: phantoms are made. Where no case has a tumor,
            training is label-free, and the test cases are scans with synthetic tumors.
        labels: NAME=VALUE as for `difftumor convert folder`, organ and tumor; other values become background.
        epochs, iterations_per_epoch: length of the training.
        seed: of phantoms, tumors and the network's first weights.
        training: False stops after the pictures of synthetic tumors; called again with True, it resumes there.
        overwrite: starts again.

    Returns:
        The manifest; its "scores" hold "dice" and "tumors" of the "untrained" and of the "trained" network. Without
        training the steps that are done.

    Raises:
        InputError: the data or the folder are not what is expected.
        CommandFailedError: a command failed.
    """
    for name, value in (("`epochs`", epochs), ("`iterations_per_epoch`", iterations_per_epoch)):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")
    if seed < 0:
        raise InputError(f"`seed` is {seed}, expected at least 0")
    settings = {
        "version": __version__,
        "data": None if data is None else str(Path(data).absolute()),
        "labels": list(labels),
        "epochs": epochs,
        "iterations_per_epoch": iterations_per_epoch,
        "seed": seed,
    }
    if data is not None:
        check_folder(data, "expected one with a sub-folder for each case", argument="data")
    for label in labels:
        parse_label(label)
    output = Path(out).absolute()
    with only_writer(output):
        journal = Journal(output, settings, overwrite=overwrite)
        work = Steps(output, settings)
        steps = [
            ("scans", "scans: yours" if data else "scans: phantoms of the abdomen", work.scans),
            ("convert", "convert: nnU-Net's raw dataset", work.convert),
            ("synthesize", "synthesize: tumors of every size in a healthy scan", work.synthesize),
            ("prepare", "prepare: plans, preprocessing, folds, settings", work.prepare),
            ("train", f"train: {epochs} epochs of {iterations_per_epoch} iterations on the CPU", work.train),
            ("predict", "predict: the test cases, by the network before and after training", work.predict),
            ("evaluate", "evaluate: both against the truth", work.evaluate),
            ("report", "report: pictures, table", work.report),
        ]
        if not training:
            steps = steps[:_STEPS_WITHOUT_TRAINING]
        for number, (name, title, do) in enumerate(steps, 1):
            journal.step(number, len(steps), name, title=title, work=partial(work.commands.of, do))
        if not training:
            pages = "\n".join(f"  {page}" for page in sorted(output.glob(f"synthetic/*/{REPORT}")))
            print(f"\nSynthetic tumors by size; open these pages in a browser:\n{pages}", flush=True)
            return journal.state
        manifest = work.manifest(journal.state)
        write_page(output, manifest, caution=work.caution())
        print(f"\n{(output / 'table.txt').read_text()}\n{_what_to_look_at(output)}", flush=True)
        return manifest


def _what_to_look_at(folder: Path) -> str:
    lines = {
        "report.html": "all of it on one page; open it in a browser",
        "synthetic/*/preview.png": "synthetic tumors by size, before and after",
        "training_samples.png": "a training batch, as the network got it",
        "predictions.png": "the test cases: truth, untrained, trained",
        "table.txt, scores.json": "the figures above, and all others",
        "commands.sh": "all commands, to run or to change",
        "manifest.json": "versions, settings, times, files",
    }
    width = max(map(len, lines))
    return "\n".join([f"Everything is in {folder}", *(f"  {name:<{width}}  {what}" for name, what in lines.items())])
