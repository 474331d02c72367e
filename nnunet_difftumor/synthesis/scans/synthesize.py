"""`synthesize`: tumors into one CT scan on disk, with everything that is needed to do it again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import nibabel as nib
import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import Scan, read_ct, read_labels, write_ct, write_labels
from nnunet_difftumor.ct.anonymous import without_text
from nnunet_difftumor.ct.hounsfield import check_organs_hu
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import only_writer, write_json
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import RenderedTumor, Renderer
from nnunet_difftumor.synthesis.renderers import recorded_renderer
from nnunet_difftumor.synthesis.scans.arrays import draw_scene, with_room_for_label
from nnunet_difftumor.synthesis.scans.manifest import (
    MANIFEST,
    check_inputs,
    hashes_of_inputs,
    hashes_of_outputs,
    read_manifest,
    specs_of,
    versions,
)
from nnunet_difftumor.synthesis.scans.preview import draw_preview
from nnunet_difftumor.synthesis.scans.settings import SynthesisOptions, SynthesisSettings
from nnunet_difftumor.synthesis.scene import insert_tumors, mask_of
from nnunet_difftumor.synthesis.visibility import is_faint
from nnunet_difftumor.synthesis.volume import ArrayVolume

OUTPUTS = ("ct.nii.gz", "tumor_mask.nii.gz", "labels.nii.gz", "preview.png")
_DESCRIPTION = f"SYNTHETIC tumors, nnunet-difftumor {__version__}"


def synthesize(
    ct: str | Path,
    organ_mask: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    from_spec: str | Path | None = None,
    spacing_mm: Sequence[float] | None = None,
    anonymous: bool = False,
    **options: Unpack[SynthesisOptions],
) -> dict[str, Any]:
    """Puts synthetic tumors into a CT scan.

    With `from_spec` the voxels are those of the manifest; those of diffusion tumors on the same kind of processor, with
    the same version of torch.

    Args:
        ct: in HU, a .nii.gz, .nii, .mha or .nrrd file; or a folder with one CT series of DICOM that fits, in it or
            below.
        organ_mask: label map on the same grid, a file likewise.
        output: folder; gets `ct.nii.gz` (geometry and dtype of the input, SYNTHETIC in its header),
            `tumor_mask.nii.gz`, `labels.nii.gz` (the mask's labels with the tumors), `preview.png` and, last,
            `manifest.json`.
        weights: folder of the diffusion models; None: `difftumor_weights` in the folder that nnUNet_results names.
        device: of the diffusion models, cpu or cuda; None: cpu, or that of the manifest.
        from_spec: a manifest, whose tumors are rendered again; nothing is drawn then, and other options are of no use.
        spacing_mm: voxel size (z, y, x) of a scan whose header was never set; with `from_spec` that of the manifest.
        anonymous: leaves names of files, and free text in the scan's header, out of what is written.
        options: what to draw, see `SynthesisOptions`.

    Returns:
        The manifest.

    Raises:
        InputError: for files that are not what is expected (see `nnunet_difftumor.ct`), an organ that is not there, an
            organ that has no room for a single tumor, or diffusion models that are missing or do not fit; with
            `from_spec` if the scan, the mask or the weights are not those that the manifest was made from.
    """
    output, settings = Path(output), SynthesisSettings.of(options)
    with only_writer(output):
        if from_spec is not None:
            return _replay(
                ct, organ_mask, output, manifest=from_spec, weights=weights, device=device, anonymous=anonymous
            )
        return synthesize_with(
            settings,
            ct,
            organ_mask,
            output,
            weights=weights,
            device=device or "cpu",
            spacing_mm=spacing_mm,
            anonymous=anonymous,
        )


def synthesize_with(
    settings: SynthesisSettings,
    ct: str | Path,
    organ_mask: str | Path,
    output: Path,
    *,
    weights: str | Path | None,
    device: str,
    spacing_mm: Sequence[float] | None,
    anonymous: bool,
) -> dict[str, Any]:
    """`synthesize` with settings that are checked already."""
    choice = settings.choose_renderer(weights=weights, device=device)
    _check_output(output, ct, organ_mask)
    scan = _read(ct, spacing_mm=spacing_mm, anonymous=anonymous)
    labels = read_labels(organ_mask, like=scan)
    organ = settings.organ_in(labels, organ_mask)
    check_organs_hu(scan.hu, labels, {organ.name: organ.organ_labels}, where=ct)
    volume = _volume(scan, labels, organ)
    scene = draw_scene(volume, organ, settings, choice, where=organ_mask)
    statistics = scene.statistics
    record = {
        "stated_spacing_mm": spacing_mm and [float(size) for size in spacing_mm],
        "notes": [*([scan.note] if scan.note else []), *settings.notes(), *choice.notes()],
        "settings": settings.to_dict(),
        "organ": {
            **organ.to_dict(),
            "volume_ml": round(statistics.volume_ml, 3),
            "parenchyma_hu": round(statistics.parenchyma_hu, 2),
            "parenchyma_sd_hu": round(statistics.parenchyma_sd_hu, 2),
            **({"wall_mm_taken": round(statistics.wall_mm, 2)} if statistics.wall_mm else {}),
        },
        "tumors": [
            {
                "spec": tumor.spec.to_dict(),
                "equivalent_diameter_mm": round(placement.diameter_mm, 3),
                "vessel_share": round(placement.vessel_share, 4),
            }
            for placement, tumor in zip(scene.placed, scene.rendered, strict=True)
        ],
        "not_placed": [{"size_class": miss.size_class, "reason": miss.reason} for miss in scene.refused],
    }
    inputs = hashes_of_inputs(ct, organ_mask, anonymous=anonymous)
    return _finish(scan, volume, scene.rendered, record, output, inputs=inputs, renderer=scene.renderer)


def _replay(
    ct: str | Path,
    organ_mask: str | Path,
    output: Path,
    *,
    manifest: str | Path,
    weights: str | Path | None,
    device: str | None,
    anonymous: bool,
) -> dict[str, Any]:
    record = read_manifest(manifest)
    _check_output(output, ct, organ_mask, manifest)
    check_inputs(record, ct, organ_mask, manifest=manifest)
    organ = Organ.from_dict(record["organ"])
    weights = None if weights is None else Path(weights)
    choice = recorded_renderer(record["renderer"], organ=organ.name, manifest=manifest, weights=weights, device=device)
    # Manifests of earlier versions have no voxel size that was stated, and no notes.
    kept = {"stated_spacing_mm": record.get("stated_spacing_mm"), "notes": record.get("notes", [])}
    kept |= {key: record[key] for key in ("settings", "organ", "tumors", "not_placed")}
    scan = _read(ct, spacing_mm=kept["stated_spacing_mm"], anonymous=anonymous)
    labels = read_labels(organ_mask, like=scan)
    volume, specs = _volume(scan, labels, organ), specs_of(record)
    renderer = choice.open(specs)
    rendered = insert_tumors(volume, specs, organ, renderer=renderer)
    inputs = hashes_of_inputs(ct, organ_mask, anonymous=anonymous)
    return _finish(scan, volume, rendered, kept, output, inputs=inputs, renderer=renderer)


def _read(ct: str | Path, *, spacing_mm: Sequence[float] | None, anonymous: bool) -> Scan:
    scan = read_ct(ct, spacing_mm=spacing_mm)
    return without_text(scan) if anonymous else scan


def _volume(scan: Scan, labels: np.ndarray, organ: Organ) -> ArrayVolume:
    """A copy of the scan, for tumors."""
    return with_room_for_label(ArrayVolume(scan.hu.copy(), labels.copy(), scan.spacing_mm, scan.direction), organ)


def _check_output(output: Path, *inputs: str | Path) -> None:
    """Refuses to write over the input, into a folder of DICOM, and over files that are not ours."""
    for folder in filter(Path.is_dir, map(Path, inputs)):
        if folder.resolve() in (output.resolve(), *output.resolve().parents):
            raise InputError(f"{output}: lies in {folder}, which holds the scan; choose another folder for the results")
    present = [name for name in (*OUTPUTS, MANIFEST) if (output / name).exists()]
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
        header: Any = nib.load(path).header
        return bytes(header["descrip"]).startswith(_DESCRIPTION.split(",")[0].encode())
    except (OSError, nib.filebasedimages.ImageFileError):
        return False


def _finish(
    scan: Scan,
    volume: ArrayVolume,
    rendered: list[RenderedTumor],
    record: dict[str, Any],
    output: Path,
    *,
    inputs: dict[str, dict[str, str]],
    renderer: Renderer,
) -> dict[str, Any]:
    """Writes every file of a scan with the record's tumors, the manifest last."""
    mask = mask_of(rendered, volume.shape)
    manifest = {
        "synthetic": True,
        "versions": versions(renderer=renderer.name),
        "inputs": inputs,
        **record,
        "renderer": renderer.record(),
        "tumors": [{**tumor, **_seen(found)} for tumor, found in zip(record["tumors"], rendered, strict=True)],
        "outputs": {
            "hu_sha256": hashlib.sha256(np.ascontiguousarray(volume.hu_array).data).hexdigest(),
            "tumor_mask_sha256": hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest(),
        },
    }
    try:
        _write(output, scan, volume, mask, rendered, manifest)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error}); choose another folder") from error
    return manifest


def _seen(tumor: RenderedTumor) -> dict[str, Any]:
    """What the manifest says of how a tumor differs from the tissue around."""
    return {
        "measured_contrast_hu": tumor.measured_contrast_hu(),
        "contrast_to_noise": tumor.contrast_to_noise(),
        "faint": is_faint(tumor),
    }


def _write(
    output: Path,
    scan: Scan,
    volume: ArrayVolume,
    mask: np.ndarray,
    rendered: list[RenderedTumor],
    manifest: dict[str, Any],
) -> None:
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
    manifest["files"] = hashes_of_outputs(output, OUTPUTS)
    write_json(output / MANIFEST, manifest)
