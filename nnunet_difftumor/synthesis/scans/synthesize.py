"""`synthesize`: tumors into one CT scan on disk, or into a folder of them, with everything needed to do it again."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import SUFFIXES, Scan, read_ct, read_labels, write_ct, write_labels
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
from nnunet_difftumor.synthesis.renderers import RendererChoice, choose_renderer, recorded_renderer
from nnunet_difftumor.synthesis.scans.manifest import (
    MANIFEST,
    check_inputs,
    hashes_of_inputs,
    read_manifest,
    specs_of,
    versions,
)
from nnunet_difftumor.synthesis.scans.preview import draw_preview
from nnunet_difftumor.synthesis.scene import insert_tumors, mask_of
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.volume import ArrayVolume

_OUTPUTS = ("ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png")
_DESCRIPTION = f"SYNTHETIC tumors, nnunet-difftumor {__version__}"


@dataclass(frozen=True)
class SynthesisSettings:
    """What `synthesize` is asked for.

    Attributes:
        organ: name of the organ, for the manifest.
        organ_labels: label values of the organ in the mask; empty: the mask's only value.
        tumor_label: value of the tumors in `labels.nii.gz`; None: one above the greatest of the mask.
        avoid_labels: label values that tumors must not touch (real lesions).
        preset: name of a preset.
        size: size class or "mix".
        count: number of tumors; None: as the preset draws it.
        contrast_hu: least and greatest contrast to the tissue around; None: as the preset draws it.
        seed: of everything random.
        renderer: "handcrafted", or "diffusion": shape and place by the preset, what is inside by a diffusion model.
        weights_organ: whose diffusion model draws in an organ that has none of its own.
    """

    organ: str = "organ"
    organ_labels: tuple[int, ...] = ()
    tumor_label: int | None = None
    avoid_labels: tuple[int, ...] = ()
    preset: str = "realistic"
    size: str = "mix"
    count: int | None = None
    contrast_hu: tuple[float, float] | None = None
    seed: int = 0
    renderer: str = "handcrafted"
    weights_organ: str | None = None


def synthesize(
    ct: str | Path,
    organ_mask: str | Path,
    output: str | Path,
    *,
    settings: SynthesisSettings | None = None,
    weights: Path | None = None,
    device: str = "cpu",
) -> dict:
    """Puts synthetic tumors into a CT scan.

    Args:
        ct: NIfTI in HU.
        organ_mask: NIfTI label map on the same grid.
        output: folder; gets `ct.nii.gz` (geometry and dtype of the input, SYNTHETIC in its header),
            `tumor_mask.nii.gz`, `labels.nii.gz` (the mask's labels with the tumors), `preview.png` and, last,
            `manifest.json`.
        settings: what to draw.
        weights: folder of the diffusion models; None: `difftumor_weights` in the folder that nnUNet_results names.
        device: of the diffusion models, cpu or cuda.

    Returns:
        The manifest.

    Raises:
        InputError: for files that are not what is expected (see `nnunet_difftumor.ct`), an organ that is not there, an
            organ that has no room for a single tumor, or diffusion models that are missing or do not fit.
    """
    settings = settings or SynthesisSettings()
    renderer = renderer_of(settings, weights=weights, device=device)
    _check_output(Path(output), ct, organ_mask)
    scan = read_ct(ct)
    labels = read_labels(organ_mask, like=scan)
    organ = _organ(labels, settings, organ_mask)
    statistics = OrganStatistics.measure(scan.hu, labels, organ=organ, spacing_mm=scan.spacing_mm)
    sampler = TumorSampler(organ, settings.preset, contrast_hu=settings.contrast_hu)
    placed, refused = sampler.sample_scene(
        ArrayVolume(scan.hu, labels, scan.spacing_mm),
        statistics,
        np.random.default_rng(settings.seed),
        size=settings.size,
        count=settings.count,
    )
    if not placed:
        reasons = "; ".join(sorted({f"{miss.size_class}: {miss.reason}" for miss in refused}))
        raise InputError(
            f"{organ_mask}: no tumor fits into the organ of {statistics.volume_ml:.1f} ml ({reasons}); "
            "ask for a smaller `size`, or check the mask"
        )
    record = {
        "settings": _plain(settings),
        "organ": {
            **organ.to_dict(),
            "volume_ml": round(statistics.volume_ml, 3),
            "parenchyma_hu": round(statistics.parenchyma_hu, 2),
            "parenchyma_sd_hu": round(statistics.parenchyma_sd_hu, 2),
        },
        "tumors": [
            {
                "spec": renderer.adapted(placement.spec).to_dict(),
                "equivalent_diameter_mm": round(placement.diameter_mm, 3),
                "vessel_share": round(placement.vessel_share, 4),
            }
            for placement in placed
        ],
        "not_placed": [{"size_class": miss.size_class, "reason": miss.reason} for miss in refused],
    }
    return _write(scan, labels, organ, record, organ_mask, Path(output), renderer=renderer)


def renderer_of(settings: SynthesisSettings, *, weights: Path | None = None, device: str = "cpu") -> RendererChoice:
    """The renderer of the settings, or why it cannot draw what they ask for; no scan is needed to know that.

    Raises:
        InputError: for diffusion models that are missing or of another organ, a device that is not there, or a
            contrast, which a diffusion model decides by itself.
    """
    if settings.renderer == "diffusion" and settings.contrast_hu is not None:
        raise InputError("`contrast_hu`: a diffusion model decides the contrast by itself; leave the option out")
    return choose_renderer(
        settings.renderer,
        organs=[settings.organ],
        sizes=SIZE_BANDS_MM if settings.size == "mix" else [settings.size],
        weights=weights,
        weights_organ=settings.weights_organ,
        device=device,
    )


def replay(
    ct: str | Path,
    organ_mask: str | Path,
    output: str | Path,
    *,
    manifest: str | Path,
    weights: Path | None = None,
    device: str | None = None,
) -> dict:
    """Renders the tumors of a manifest again, into the same scan.

    The voxels are the same; those of diffusion tumors on the same kind of processor, with the same version of torch.

    Args:
        ct, organ_mask, output: as in `synthesize`.
        manifest: says which tumors.
        weights: folder of the diffusion models; None: as in `synthesize`.
        device: cpu or cuda; None: that of the manifest.

    Raises:
        InputError: if the manifest cannot be read, or the scan, the mask or the weights are not those that it was made
            from.
    """
    record = read_manifest(manifest)
    _check_output(Path(output), ct, organ_mask, manifest)
    check_inputs(record, ct, organ_mask, manifest=manifest)
    organ = Organ.from_dict(record["organ"])
    renderer = recorded_renderer(
        record["renderer"], organ=organ.name, manifest=manifest, weights=weights, device=device
    )
    scan = read_ct(ct)
    labels = read_labels(organ_mask, like=scan)
    kept = {key: record[key] for key in ("settings", "organ", "tumors", "not_placed")}
    return _write(scan, labels, organ, kept, organ_mask, Path(output), renderer=renderer)


def find_cases(ct: Path, organ_mask: Path) -> Iterator[tuple[str, Path, Path]]:
    """Pairs of scan and mask in a folder: (name, scan, mask), sorted by name.

    Either `ct` holds sub-folders with `ct.nii.gz`, and `organ_mask` is a file name inside each of them; or `ct` holds
    NIfTI files, and `organ_mask` is a folder with files of the same names.

    Raises:
        InputError: if there is no scan, or a mask is missing.
    """
    cases = [
        (folder.name, folder / "ct.nii.gz", folder / organ_mask.name)
        for folder in sorted(ct.iterdir())
        if (folder / "ct.nii.gz").is_file()
    ] or [
        (_stem(file), file, organ_mask / file.name)
        for file in sorted(ct.iterdir())
        if file.name.endswith(SUFFIXES) and not file.name.startswith(".")
    ]
    if not cases:
        raise InputError(f"{ct}: neither NIfTI files nor sub-folders with ct.nii.gz in this folder")
    missing = [str(mask) for _, _, mask in cases if not mask.is_file()]
    if missing:
        raise InputError(f"{ct}: {len(missing)} organ masks are missing, the first is {missing[0]}")
    yield from cases


def is_finished(
    ct: str | Path,
    organ_mask: str | Path,
    output: str | Path,
    *,
    settings: SynthesisSettings,
    weights: Path | None = None,
) -> bool:
    """Whether `output` holds the finished result of these settings for these two files (the manifest comes last).

    The device of diffusion models does not matter.

    Raises:
        InputError: if it holds the result of something else.
    """
    path = Path(output) / MANIFEST
    if not path.is_file():
        return False
    record = read_manifest(path)
    if record["settings"] != _plain(settings) or record["inputs"] != hashes_of_inputs(ct, organ_mask):
        raise InputError(f"{output}: already holds the result of other settings or another scan; choose another folder")
    # The same weights?
    organ = record["organ"]["name"]
    recorded_renderer(record["renderer"], organ=organ, manifest=path, weights=weights, device="cpu")
    return all((Path(output) / name).is_file() for name in _OUTPUTS)


def _plain(settings: SynthesisSettings) -> dict:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(settings).items()}


def _check_output(output: Path, *inputs: str | Path) -> None:
    """Refuses to write over the input, and over files that are not ours."""
    present = [name for name in (*_OUTPUTS, MANIFEST) if (output / name).exists()]
    for name in present:
        for path in inputs:
            if Path(path).exists() and (output / name).samefile(path):
                raise InputError(f"{output}: {path} would be overwritten; choose another folder for the results")
    if present and not _is_ours(output / "ct.nii.gz"):
        raise InputError(
            f"{output}: holds {', '.join(present)}, but not from `difftumor synthesize`; choose another folder"
        )


def _is_ours(path: Path) -> bool:
    try:
        return bytes(nib.load(path).header["descrip"]).startswith(_DESCRIPTION.split(",")[0].encode())
    except (OSError, nib.filebasedimages.ImageFileError):
        return False


def _organ(labels: np.ndarray, settings: SynthesisSettings, path: str | Path) -> Organ:
    values = [int(value) for value in np.unique(labels) if value]
    if not values:
        raise InputError(f"{path}: the organ mask is empty (all voxels are 0); give a mask with the organ in it")
    wanted = settings.organ_labels or tuple(value for value in values if value not in settings.avoid_labels)
    if not settings.organ_labels and len(wanted) != 1:
        raise InputError(f"{path}: holds the labels {values}; say with `organ_label` which of them is the organ")
    if not set(wanted) & set(values):
        raise InputError(f"{path}: no voxel has the organ label {list(wanted)}; the file holds {values}")
    tumor_label = settings.tumor_label if settings.tumor_label is not None else max(values) + 1
    if tumor_label in wanted or not 0 < tumor_label <= 32767:
        raise InputError(f"`tumor_label` is {tumor_label}, expected a value from 1 to 32767 that is not the organ's")
    if tumor_label in values and tumor_label not in settings.avoid_labels:
        raise InputError(
            f"{path}: the tumors' label {tumor_label} is already in the mask; choose another `tumor_label`, or say "
            f"with `avoid_label` {tumor_label} that these are real tumors"
        )
    return Organ(settings.organ, tuple(wanted), tumor_label, settings.avoid_labels)


def _write(
    scan: Scan,
    labels: np.ndarray,
    organ: Organ,
    record: dict,
    organ_mask: str | Path,
    output: Path,
    *,
    renderer: RendererChoice,
) -> dict:
    """Renders the record's tumors and writes every file, the manifest last."""
    if organ.tumor_label > np.iinfo(labels.dtype).max:
        labels = labels.astype(np.int16)
    volume = ArrayVolume(scan.hu.copy(), labels.copy(), scan.spacing_mm, scan.direction)
    specs = specs_of(record)
    opened = renderer.open(specs)
    rendered = insert_tumors(volume, specs, organ, renderer=opened)
    mask = mask_of(rendered, volume.shape)
    manifest = {
        "synthetic": True,
        "versions": versions(renderer=renderer.name),
        "inputs": hashes_of_inputs(scan.path, organ_mask),
        **record,
        "renderer": opened.record(),
        "tumors": [
            {**tumor, "measured_contrast_hu": found.measured_contrast_hu()}
            for tumor, found in zip(record["tumors"], rendered, strict=True)
        ],
        "outputs": {
            "hu_sha256": hashlib.sha256(np.ascontiguousarray(volume.hu_array)).hexdigest(),
            "tumor_mask_sha256": hashlib.sha256(np.ascontiguousarray(mask)).hexdigest(),
        },
    }
    try:
        # Until the new manifest is there, the folder counts as unfinished.
        (output / MANIFEST).unlink(missing_ok=True)
        write_ct(output / "ct.nii.gz", volume.hu_array, scan, description=_DESCRIPTION)
        write_labels(output / "tumor_mask.nii.gz", mask, scan)
        write_labels(output / "labels.nii.gz", volume.label_array, scan)
        draw_preview(
            output / "preview.png",
            scan.hu,
            volume.hu_array,
            mask=mask,
            boxes=[tumor.box for tumor in rendered],
            spacing_mm=scan.spacing_mm,
            directions=scan.direction,
        )
        write_json(output / MANIFEST, manifest)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error}); choose another folder") from error
    return manifest


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))
