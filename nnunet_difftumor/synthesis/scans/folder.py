"""`synthesize` for a folder of scans: each gets tumors and a folder of its own; finished ones are skipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack
from zlib import crc32

from nnunet_difftumor.ct import SUFFIXES
from nnunet_difftumor.ct.anonymous import anonymous_name
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import DiskError, only_writer
from nnunet_difftumor.synthesis.renderers import recorded_renderer
from nnunet_difftumor.synthesis.scans.manifest import (
    MANIFEST,
    altered_outputs,
    hashes_of_inputs,
    read_manifest,
    tumor_text,
)
from nnunet_difftumor.synthesis.scans.settings import SynthesisOptions, SynthesisSettings
from nnunet_difftumor.synthesis.scans.sweep import SWEEP
from nnunet_difftumor.synthesis.scans.synthesize import OUTPUTS, synthesize_with
from nnunet_difftumor.synthesis.visibility import LEAST_CONTRAST_TO_NOISE

# nnU-Net ends the names of images by the number of their channel.
_FIRST_CHANNEL = "_0000"


@dataclass
class FolderReport:
    """What became of the scans of a folder, by their names.

    Attributes:
        manifests: of the scans that got tumors now.
        finished_before: scans that had them already.
        failed: why other scans have none.
    """

    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished_before: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def synthesize_folder(
    ct: str | Path,
    organ_mask: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "cpu",
    spacing_mm: Sequence[float] | None = None,
    anonymous: bool = False,
    sweep: bool = False,
    report: Callable[[str], None] = print,
    **options: Unpack[SynthesisOptions],
) -> FolderReport:
    """Puts synthetic tumors into every scan of a folder. A scan that fails does not keep the others from theirs.

    Args:
        ct: folder of NIfTI files, or of sub-folders with `ct.nii.gz`.
        organ_mask: folder with label maps of the same names; or the file name of the label map in each sub-folder.
        output: folder; every scan gets one in it, as `synthesize` fills it.
        weights, device, spacing_mm, options: as in `synthesize`; the seed of a scan is made of `seed` and its name.
        anonymous: as in `synthesize`; scans are named after their content.
        sweep: as in `synthesize`.
        report: gets a line per scan.

    Raises:
        InputError: if there is no scan, a mask is missing, the renderer cannot draw what is asked for, or the disk is
            full.
    """
    settings, output = SynthesisSettings.of(options), Path(output)
    with only_writer(output):
        choice = settings.choose_renderer(weights=weights, device=device)  # before the first scan, not once for each
        cases, done = find_cases(Path(ct), Path(organ_mask)), FolderReport()
        for note in (*settings.notes(), *choice.notes()):
            report(f"NOTE: {note}")
        given: dict[str, Any] = {"weights": weights, "spacing_mm": spacing_mm, "anonymous": anonymous, "sweep": sweep}
        for number, (name, file, mask) in enumerate(cases, 1):
            if anonymous:
                name = anonymous_name(file)
            # Every scan draws its own tumors, whatever other scans are in the folder.
            own = replace(settings, seed=settings.seed + crc32(name.encode()))
            try:
                if is_finished(file, mask, output / name, settings=own, report=report, **given):
                    done.finished_before.append(name)
                    line = f"{output / name}: finished before"
                else:
                    manifest = synthesize_with(own, file, mask, output / name, device=device, **given)
                    done.manifests[name] = manifest
                    line = summary(output / name, manifest)
            except InputError as error:
                if isinstance(error.__cause__, DiskError):
                    raise  # so would all others
                said = str(error)
                if anonymous:
                    said = said.replace(str(file), f"the CT of {name}").replace(str(mask), f"the mask of {name}")
                done.failed[name] = said
                line = f"{name}: {said}"
            report(f"[{number}/{len(cases)}] {line}")
    return done


def find_cases(ct: Path, organ_mask: Path) -> list[tuple[str, Path, Path]]:
    """Pairs of scan and mask in a folder: (name, scan, mask), sorted by name.

    Either `ct` holds sub-folders with `ct.nii.gz`, and `organ_mask` is a file name inside each of them; or `ct` holds
    NIfTI files, and `organ_mask` is a folder with files of the same names, or of these names without nnU-Net's ending
    _0000, as imagesTr and labelsTr have them.

    Raises:
        InputError: if there is no scan, or a mask is missing.
    """
    cases = [
        (folder.name, folder / "ct.nii.gz", folder / organ_mask.name)
        for folder in sorted(ct.iterdir())
        if (folder / "ct.nii.gz").is_file()
    ] or [
        (_case_name(file), file, _mask_of(file, organ_mask))
        for file in sorted(ct.iterdir())
        if file.name.endswith(SUFFIXES) and not file.name.startswith(".")
    ]
    if not cases:
        raise InputError(f"{ct}: neither NIfTI files nor sub-folders with ct.nii.gz in this folder")
    missing = [str(mask) for _, _, mask in cases if not mask.is_file()]
    if missing:
        raise InputError(
            f"{ct}: {len(missing)} organ masks are missing, the first is {missing[0]}; a mask has the file name of its "
            "scan, with or without nnU-Net's ending _0000"
        )
    names = [name for name, _, _ in cases]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{ct}: holds several files of the scan {twice[0]}; keep one of them")
    return cases


def _case_name(file: Path) -> str:
    return _stem(file).removesuffix(_FIRST_CHANNEL)


def _mask_of(file: Path, folder: Path) -> Path:
    """The mask of a scan, whether it is there or not."""
    same, case = folder / file.name, _case_name(file)
    others = [folder / f"{name}{suffix}" for name in (_stem(file), case) for suffix in SUFFIXES]
    return next((path for path in (same, *others) if path.is_file()), same)


def is_finished(
    ct: str | Path,
    organ_mask: str | Path,
    output: str | Path,
    *,
    settings: SynthesisSettings,
    weights: str | Path | None = None,
    spacing_mm: Sequence[float] | None = None,
    anonymous: bool = False,
    sweep: bool = False,
    report: Callable[[str], None] = print,
) -> bool:
    """Whether `output` holds the finished result of these settings for these two files (the manifest comes last).

    The device of diffusion models does not matter. A result with a file that is not what was written is not finished.

    Args:
        ct, organ_mask: the files.
        output: folder of the result.
        settings: of the result.
        weights: folder of diffusion models.
        spacing_mm: stated for headers in which it was never set.
        anonymous: whether the result is to be without names of files.
        sweep: whether it is to have an animation; one that nobody asked for is no mistake.
        report: gets a line if the result is there, but damaged.

    Raises:
        InputError: if it holds the result of something else.
    """
    path = Path(output) / MANIFEST
    if not path.is_file():
        return False
    record = read_manifest(path)
    stated = spacing_mm and [float(size) for size in spacing_mm]
    same = settings.is_recorded_as(record["settings"]) and record.get("stated_spacing_mm") == stated
    if not same or record["inputs"] != hashes_of_inputs(ct, organ_mask, anonymous=anonymous):
        raise InputError(f"{output}: already holds the result of other settings or another scan; choose another folder")
    # The same weights?
    organ, weights = record["organ"]["name"], None if weights is None else Path(weights)
    recorded_renderer(record["renderer"], organ=organ, manifest=path, weights=weights, device="cpu")
    expected = (*OUTPUTS, SWEEP) if sweep and record["tumors"] else OUTPUTS
    altered = altered_outputs(Path(output), record, expected)
    if altered:
        report(f"{output}: {', '.join(altered)} missing, or not what was written; made again")
    return not altered


def summary(output: Path, manifest: dict[str, Any]) -> str:
    """A result in a line: its folder, number, size and contrast of each tumor, how many of them nobody could see."""
    tumors = [tumor_text(number, tumor) for number, tumor in enumerate(manifest["tumors"], 1)]
    refused = f"; not placed: {len(manifest['not_placed'])}" if manifest["not_placed"] else ""
    faint = sum(tumor["faint"] for tumor in manifest["tumors"])
    unseen = (
        f"; hardly to be seen: {faint} (contrast below {LEAST_CONTRAST_TO_NOISE:g} times the noise)" if faint else ""
    )
    return f"{output}: {', '.join(tumors)}{refused}{unseen}"


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))
