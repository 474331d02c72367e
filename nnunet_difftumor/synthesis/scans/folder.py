"""`synthesize` for a folder of scans: each gets tumors and a folder of its own; finished ones are skipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack
from zlib import crc32

from nnunet_difftumor.ct import IMAGE_SUFFIXES
from nnunet_difftumor.ct.anonymous import anonymous_name, without_paths
from nnunet_difftumor.ct.dicom.study import files_of_study, is_study
from nnunet_difftumor.ct.images import FORMATS, in_any_format, stem_of
from nnunet_difftumor.ct.scan_folder import scan_of_case
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
_CT_NAME = "ct.nii.gz"


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
        ct: folder of scans (.nii.gz, .nii, .mha, .nrrd), or of sub-folders with `ct.nii.gz` or with DICOM files.
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
                    said = _without_paths(said, name, file, mask)
                done.failed[name] = said
                line = f"{name}: {said}"
            report(f"[{number}/{len(cases)}] {line}")
    return done


def is_one_scan(ct: Path, organ_mask: Path) -> bool:
    """Whether `ct` is one scan, a file or DICOM files in a folder or below, and no folder of scans.

    Args:
        ct: of which this is asked.
        organ_mask: the file with the mask of one scan, or as `find_cases` takes it.

    Raises:
        InputError: as `find_cases`, for a sub-folder with several files of one name.
    """
    if not ct.is_dir():
        return True
    return not organ_mask.is_dir() and not _case_folders(ct, organ_mask) and is_study(ct)


def find_cases(ct: Path, organ_mask: Path) -> list[tuple[str, Path, Path]]:
    """Pairs of scan and mask in a folder: (name, scan, mask), sorted by name.

    Either `ct` holds sub-folders with `ct.nii.gz` (or another format, or DICOM files), and `organ_mask` is a file name
    inside each of them; or `ct` holds image files, and `organ_mask` is a folder with files of the same names, or of
    these names without nnU-Net's ending _0000, as imagesTr and labelsTr have them.

    Raises:
        InputError: if there is no scan, or a mask is missing.
    """
    cases = [
        (folder.name, scan, in_any_format(folder / organ_mask.name)) for folder, scan in _case_folders(ct, organ_mask)
    ] or [
        (_case_name(file), file, _mask_of(file, organ_mask))
        for file in sorted(ct.iterdir())
        if file.name.endswith(IMAGE_SUFFIXES) and not file.name.startswith(".")
    ]
    if not cases:
        raise InputError(
            f"{ct}: neither images ({FORMATS}) nor sub-folders with {_CT_NAME}, or with DICOM files and "
            f"{organ_mask.name}, in this folder"
        )
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


def _case_folders(ct: Path, organ_mask: Path) -> list[tuple[Path, Path]]:
    """Sub-folders that hold a scan, and the scan; none if these are the series of one scan, without any mask."""
    folders = [folder for folder in sorted(ct.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    found = [(folder, scan) for folder in folders if (scan := scan_of_case(folder, _CT_NAME)).exists()]
    if any(scan != folder or in_any_format(folder / organ_mask.name).is_file() for folder, scan in found):
        return found
    return []


def _case_name(file: Path) -> str:
    return stem_of(file).removesuffix(_FIRST_CHANNEL)


def _mask_of(file: Path, folder: Path) -> Path:
    """The mask of a scan, whether it is there or not."""
    same, case = folder / file.name, _case_name(file)
    others = [folder / f"{name}{suffix}" for name in (stem_of(file), case) for suffix in IMAGE_SUFFIXES]
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


def _without_paths(text: str, name: str, ct: Path, organ_mask: Path) -> str:
    """A message about a scan of another name, without those of its files and folders."""
    slices = files_of_study(ct) if ct.is_dir() else []
    names = {path.parent: f"a folder of {name}" for path in slices} | dict.fromkeys(slices, f"a slice of {name}")
    return without_paths(text, names | {ct: f"the CT of {name}", organ_mask: f"the mask of {name}"})
