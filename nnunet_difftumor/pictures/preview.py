"""`preview`: pictures of what the trainer will see of a prepared dataset, and the specs of what they show."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import only_writer, write_json
from nnunet_difftumor.picture_style import WINDOW_HU
from nnunet_difftumor.pictures.montage import Montage, PreviewSample
from nnunet_difftumor.pictures.montage_pictures import Cell, draw_montage
from nnunet_difftumor.pictures.page import REPORT, write_page
from nnunet_difftumor.pipeline.sources import Outcome
from nnunet_difftumor.prepared.dataset import prepared_folder
from nnunet_difftumor.prepared.enhancement import unenhanced_notes
from nnunet_difftumor.synthesis.scans.sweep import SWEEP, animate_sweep
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM

_COLUMNS = 4
_MIX_ROWS = 2
_LONGEST_NAME = 26


def preview(
    dataset_id: int,
    *,
    output: str | Path | None = None,
    configuration: str = "3d_fullres",
    seed: int | None = None,
    sweep: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Draws a picture per organ, with a row per size, and one of the mix that the training draws.

    Args:
        dataset_id: of a dataset in nnUNet_preprocessed that `difftumor prepare` made.
        output: folder for `ORGAN.png`, `mix.png`, `report.html`, `preview.json` and `sweep.gif`; None: in the
            dataset's own.
        configuration: whose preprocessed cases are drawn.
        seed: instead of the one in difftumor.json; with that one, the mix is the first synthetic samples of fold 0.
        sweep: also write an animation through one case with tumors of every size in every organ.
        report: gets a line per row.

    Returns:
        The output folder.

    Raises:
        InputError: if the dataset was not prepared, or has no case into which tumors could be put.
    """
    if seed is not None and seed < 0:
        raise InputError(f"`seed` is {seed}, expected at least 0")
    folder = prepared_folder(dataset_id)
    montage = Montage(folder, configuration=configuration, seed=seed)
    output = folder / "difftumor_preview" if output is None else Path(output)
    with only_writer(output):
        for note in unenhanced_notes(montage.config, montage.synthesis.statistics, montage.roles.bases):
            report(f"NOTE: {note}")
        pictures = _sample(montage, report)
        title = f"{folder.name}, {configuration}, preset {montage.config.preset}, seed {montage.config.seed}"
        files = _draw(pictures, output, title)
        if sweep:
            files += _write_sweep(montage, output / SWEEP, report)
        everything = [sample for rows in pictures.values() for samples in rows.values() for sample in samples]
        empty = sum(not sample.outcome.tumors for sample in everything)
        record = {
            "version": __version__,
            "dataset": folder.name,
            "configuration": configuration,
            "settings": montage.config.to_dict(),
            "samples": len(everything),
            "samples_without_tumor": empty,
            "pictures": {
                name: {label: [sample.to_dict() for sample in samples] for label, samples in rows.items()}
                for name, rows in pictures.items()
            },
        }
        write_page(output, record, files=files)
        write_json(output / "preview.json", record)
        report(
            f"{len(everything)} samples, {empty} of them without a tumor\n"
            f"{output}: {', '.join([*files, REPORT])}, preview.json"
        )
        return output


# The samples of each row, by its label, of each picture, by its name.
_Pictures = dict[str, dict[str, list[PreviewSample]]]


def _sample(montage: Montage, report: Callable[[str], None]) -> _Pictures:
    """Makes the samples; a picture per organ where tumors are hand-crafted, and the mix."""
    pictures: _Pictures = {}
    if montage.config.source == "handcrafted":
        for organ in montage.config.organs:
            rows = pictures[organ.name] = {}
            for size, (low, high) in SIZE_BANDS_MM.items():
                rows[f"{size}, {low:g}-{high:g} mm"] = samples = list(montage.row(organ, size, columns=_COLUMNS))
                report(_line(f"{organ.name}, {size}", [sample.outcome for sample in samples]))
    mix = list(montage.mix(_MIX_ROWS * _COLUMNS))
    report(_line("mix, as in training", [sample.outcome for sample in mix]))
    pictures["mix"] = {
        f"mix {number + 1}": mix[number * _COLUMNS : (number + 1) * _COLUMNS]
        for number in range(-(-len(mix) // _COLUMNS))
    }
    return pictures


def _draw(pictures: _Pictures, output: Path, title: str) -> list[str]:
    """Draws them; returns the names of the files."""
    files = []
    for name, rows in pictures.items():
        cells = [(label, [_cell(sample) for sample in samples]) for label, samples in rows.items() if samples]
        if cells:
            draw_montage(output / f"{name}.png", f"{name}: {title}", cells)
            files.append(f"{name}.png")
    return files


def _line(name: str, outcomes: Sequence[Outcome]) -> str:
    """How many samples got tumors, and why others were refused."""
    if not outcomes:
        return f"{name}: no sample (no base has the organ, or training makes no synthetic samples)"
    good = [outcome for outcome in outcomes if outcome.tumors]
    text = f"{name}: {len(good)} of {len(outcomes)} samples, {sum(len(o.tumors) for o in good)} tumors"
    reasons = Counter(reason for outcome in outcomes for reason in outcome.refused)
    if reasons:
        text += "; refused: " + ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    return text


def _cell(sample: PreviewSample) -> Cell:
    title = _short(sample.case)
    if not sample.outcome.tumors:
        return Cell(title, "", None, "no tumor:\n" + "\n".join(_wrapped(sorted(set(sample.outcome.refused)))))
    largest = max(range(len(sample.diameters_mm)), key=sample.diameters_mm.__getitem__)
    tumor = sample.outcome.tumors[largest]
    more = len(sample.diameters_mm) - 1
    subtitle = f"{tumor.spec.organ} {sample.diameters_mm[largest]:.1f} mm"
    contrast = tumor.measured_contrast_hu()  # the spec of a tumor that a model draws has none
    if contrast is not None:
        subtitle += f", {contrast:+.0f} HU"
    return Cell(title, subtitle + (f" (+{more})" if more else ""), sample.panel)


def _write_sweep(montage: Montage, path: Path, report: Callable[[str], None]) -> list[str]:
    sweep = montage.sweep()
    if sweep is None:
        report("sweep: no tumor found room in the case that was chosen; try another `seed`")
        return []
    for name, outcome in sweep.outcomes.items():
        report(_line(f"sweep of {sweep.case}, {name}", [outcome]))
    animate_sweep(
        path,
        [f"axial, slice {number}" for number in sweep.slices],
        [sweep.case] * len(sweep.slices),
        sweep.before,
        sweep.after,
        mask=sweep.contour,
        pixel_mm=sweep.pixel_mm,
        window_hu=WINDOW_HU,
    )
    return [path.name]


def _short(name: str) -> str:
    half = (_LONGEST_NAME - 3) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}...{name[-half:]}"


def _wrapped(texts: Iterable[str]) -> list[str]:
    import textwrap

    return [line for text in texts for line in textwrap.wrap(text, 44)]
