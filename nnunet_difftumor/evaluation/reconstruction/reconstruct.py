"""`reconstruct`: whether an autoencoder's weights fit a scan, in figures and a picture, and what is likely wrong."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import Scan, read_ct, read_labels, write_ct
from nnunet_difftumor.ct.anonymous import UNNAMED, without_text
from nnunet_difftumor.ct.dicom.study import sha256_of_scan
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.reconstruction.advice import LEAST_SHARE_IN_WINDOW, advice, poor_psnr_db
from nnunet_difftumor.evaluation.reconstruction.picture import draw_reconstruction
from nnunet_difftumor.evaluation.reconstruction.scan_autoencoder import Figures, ScanAutoencoder, blocks, centre_of
from nnunet_difftumor.files import only_writer, write_json
from nnunet_difftumor.generative.registry import how_to_get
from nnunet_difftumor.generative.trained_enough import doubts
from nnunet_difftumor.generative.weights import Description, load_autoencoder
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, default_weights_folder
from nnunet_difftumor.pages import Page
from nnunet_difftumor.synthesis.networks.diffusion import check_device
from nnunet_difftumor.synthesis.networks.weights import recorded
from nnunet_difftumor.synthesis.scans.stacks import axial_stack
from nnunet_difftumor.synthesis.volume import Box, box_shape, box_to_json, box_within, whole

PICTURE, RECORD, CT, REPORT = "reconstruction.png", "reconstruction.json", "reconstruction.nii.gz", "report.html"
# Of the published weights, and of weights whose description does not say it.
PATCH_SIZE = (96, 96, 96)


def reconstruct(
    ct: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    organ_mask: str | Path | None = None,
    organ_label: int | Sequence[int] = (),
    device: str = "cpu",
    save_ct: bool = False,
    spacing_mm: Sequence[float] | None = None,
    anonymous: bool = False,
) -> dict[str, Any]:
    """Encodes and decodes a CT scan in patches of the size that the weights were trained on, and compares.

    Figures of patches of another size differ, since the norms pool over the patch; synthesis shows the same size.

    Args:
        ct: in HU, a .nii.gz, .nii, .mha or .nrrd file; or a folder with one CT series of DICOM that fits, in it or
            below.
        output: folder; gets `reconstruction.png`, `report.html` (slices to scroll through) and, last,
            `reconstruction.json`.
        weights: folder with autoencoder.safetensors; None: `difftumor_weights` in the folder that nnUNet_results names.
        organ_mask: label map on the same grid, a file likewise; limits all to the box of the organ.
        organ_label: label value, or values, of the organ in the mask; empty: all.
        device: cpu or cuda.
        save_ct: also writes `reconstruction.nii.gz`, on the grid of the scan; voxels outside of the box keep their HU.
        spacing_mm: voxel size (z, y, x) of a scan whose header was never set.
        anonymous: leaves names of files, and free text in the scan's header, out of what is written.

    Returns:
        The content of `reconstruction.json`.

    Raises:
        InputError: for files that are not what is expected (see `nnunet_difftumor.ct`), weights that are missing or no
            autoencoder, an empty organ, or too little memory on the GPU.
    """
    check_device(device)
    organ_labels = (organ_label,) if isinstance(organ_label, int) else tuple(organ_label)
    weights = default_weights_folder() if weights is None else Path(weights)
    output, file = Path(output), weights / AUTOENCODER_FILE
    _check(output, ct, organ_mask, file)
    with only_writer(output):
        model, description = load_autoencoder(file)
        scan = read_ct(ct, spacing_mm=spacing_mm)
        scan = without_text(scan) if anonymous else scan
        region, middle = _region(scan, organ_mask, organ_labels)
        autoencoder = ScanAutoencoder(model, description.volumes, device=device)
        sizes = zip(_patch_size(description), description.volumes.spacing_mm, strict=True)
        extent_mm = [voxels * step for voxels, step in sizes]
        figures, made, patches = _reconstructed(autoencoder, scan, region, extent_mm)
        record = {
            "psnr_db": round(figures.psnr_db, 3),
            "ssim": round(figures.ssim, 5),
            "mae_hu": round(figures.mae_hu, 3),
            "share_in_window": round(figures.share_in_window, 5),
            "volumes": asdict(description.volumes),
            "region": box_to_json(region),
            **patches,
            "likely_wrong": _likely_wrong(figures, autoencoder, scan, middle, most_mm=min(extent_mm)),
            "notes": [note for note in (scan.note, doubts(description, name=file.name)) if note],
            "inputs": _hashes(ct, organ_mask, anonymous=anonymous),
            "organ_labels": list(organ_labels),
            "weights": recorded(file.name, description),
            "device": device,
            "version": __version__,
        }
        _write(output, scan, made, region, middle, record, save_ct=save_ct)
        return record


def _reconstructed(
    autoencoder: ScanAutoencoder, scan: Scan, region: Box, extent_mm: Sequence[float]
) -> tuple[Figures, np.ndarray, dict[str, Any]]:
    """Figures, the reconstruction in HU (z, y, x) of the region, and how many patches of which size it took."""
    figures = Figures(autoencoder.volumes.window_hu)
    made = np.empty(box_shape(region), np.float32)
    tiles = blocks(region, scan.spacing_mm, most_mm=autoencoder.kept_mm(scan, extent_mm))
    for block in tqdm(tiles, desc="reconstruct", unit="patch", disable=None):
        patch = autoencoder.patch(scan, centre_of(block, scan.spacing_mm), extent_mm=extent_mm)
        figures.add(patch, block)
        made[box_within(block, region)] = patch.grid.to_scan(patch.made_hu, block)
    return figures, made, {"patches": len(tiles), "patch_voxels": list(patch.grid.shape)}


def _likely_wrong(
    figures: Figures, autoencoder: ScanAutoencoder, scan: Scan, middle: tuple[int, int, int], *, most_mm: float
) -> list[str]:
    """What is likely wrong where figures are poor; empty where they are not."""
    blank = figures.share_in_window < LEAST_SHARE_IN_WINDOW
    if not blank and figures.psnr_db >= poor_psnr_db(autoencoder.volumes.window_hu):
        return []
    advised = advice(autoencoder, scan, np.multiply(middle, scan.spacing_mm).tolist(), most_mm=most_mm)
    if not blank:
        return advised.lines()
    return [
        f"Only {100 * figures.share_in_window:.1f} % of the region lies within the window, so the figures say "
        "little: check the scan's HU, or give an `organ_mask`.",
        *(mistake.text for mistake in advised.mistakes),
    ]


def _patch_size(description: Description) -> tuple[int, int, int]:
    """Voxels that the weights were trained on, where `train-autoencoder` has written it."""
    settings = description.source.get("settings")
    if not isinstance(settings, dict) or "patch_size" not in settings:
        return PATCH_SIZE
    size = settings["patch_size"]
    if not (isinstance(size, list) and len(size) == 3 and all(isinstance(n, int) and n > 0 for n in size)):
        raise InputError(f"the autoencoder's JSON: patch_size in source is {size!r}, expected three numbers of voxels")
    return tuple(size)


def _check(output: Path, ct: str | Path, organ_mask: str | Path | None, weights: Path) -> None:
    """Refuses missing weights, and an output that would replace an input."""
    if not weights.is_file():
        raise InputError(
            f"{weights.parent}: {AUTOENCODER_FILE} not found; {how_to_get('liver', ['early'], weights.parent)}; or "
            "name another folder with `weights`"
        )
    for path in (ct, organ_mask):
        if path is not None and (output / CT).exists() and Path(path).exists() and (output / CT).samefile(path):
            raise InputError(f"{output}: {path} would be overwritten; choose another folder for the results")


def _region(scan: Scan, organ_mask: str | Path | None, organ_labels: Sequence[int]) -> tuple[Box, tuple[int, int, int]]:
    """The box to reconstruct, and a voxel in its middle: that of the organ nearest to its centre of mass."""
    if organ_mask is None:
        if organ_labels:
            raise InputError("`organ_label`: is for `organ_mask`; give the mask too")
        return whole(scan.hu.shape), (scan.hu.shape[0] // 2, scan.hu.shape[1] // 2, scan.hu.shape[2] // 2)
    labels = read_labels(organ_mask, like=scan)
    mask = np.isin(labels, organ_labels) if organ_labels else labels > 0
    inside = np.argwhere(mask)
    if not len(inside):
        seen = ", ".join(str(value) for value in np.unique(labels))
        wanted = f"the label {', '.join(map(str, organ_labels))}" if organ_labels else "a label above 0"
        raise InputError(f"{organ_mask}: no voxel has {wanted} (there: {seen}); give a mask with the organ in it")
    z, y, x = (slice(int(a), int(b) + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))
    nearest = inside[np.argmin(np.square((inside - inside.mean(0)) * scan.spacing_mm).sum(1))]
    return (z, y, x), (int(nearest[0]), int(nearest[1]), int(nearest[2]))


def _hashes(ct: str | Path, organ_mask: str | Path | None, *, anonymous: bool) -> dict[str, dict[str, str]]:
    paths = {"ct": ct} | ({} if organ_mask is None else {"organ_mask": organ_mask})
    return {
        name: {"file": UNNAMED if anonymous else Path(path).name, "sha256": sha256_of_scan(Path(path))}
        for name, path in paths.items()
    }


def _write(
    output: Path,
    scan: Scan,
    made: np.ndarray,
    region: Box,
    middle: tuple[int, int, int],
    record: dict[str, Any],
    *,
    save_ct: bool,
) -> None:
    """Writes every file, the record last."""
    window = record["volumes"]["window_hu"]
    try:
        (output / RECORD).unlink(missing_ok=True)
        draw_reconstruction(
            output / PICTURE,
            np.clip(scan.hu[region], *window),
            made,
            window_hu=window,
            centre=[at - part.start for at, part in zip(middle, region, strict=True)],
            spacing_mm=scan.spacing_mm,
            directions=scan.direction,
            title=summary(record),
        )
        if save_ct:
            hu = scan.hu.copy()
            hu[region] = made
            write_ct(output / CT, hu, scan, description=f"AUTOENCODER output, nnunet-difftumor {__version__}")
        _write_report(output, scan, made, region, record)
        write_json(output / RECORD, record)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error}); choose another folder") from error


def _write_report(output: Path, scan: Scan, made: np.ndarray, region: Box, record: dict[str, Any]) -> None:
    """A page with the figures, what is likely wrong, and the region's slices in scan and reconstruction."""
    names = {key: entry["file"] for key, entry in record["inputs"].items()}
    page = Page(
        f"{names['ct']} through the autoencoder {record['weights']['file']}",
        "What the autoencoder loses of a scan is lost in every tumor that is drawn with it.",
    )
    page.heading("Figures")
    low, high = record["volumes"]["window_hu"]
    figures = [record[key] for key in ("psnr_db", "ssim", "mae_hu", "share_in_window")]
    page.table(("PSNR, dB", "SSIM", f"MAE, HU, in {low:g} to {high:g} HU", "share in the window"), [figures])
    for line in record["likely_wrong"]:
        page.warning(line)
    page.heading("Slices")
    hu, crop = np.clip(scan.hu[region], low, high), whole(made.shape)
    page.slices(
        axial_stack(
            summary(record),
            hu,
            made,
            region=crop,
            spacing_mm=scan.spacing_mm,
            directions=scan.direction,
            names=("scan", "reconstruction"),
        )
    )
    page.picture(output / PICTURE, "Scan, reconstruction and difference, in the middle of the region")
    page.heading("Settings")
    shown = ("patches", "patch_voxels", "region", "volumes", "organ_labels", "device", "version")
    page.facts({key: record[key] for key in shown})
    page.folded("Weights and hashes", {"weights": record["weights"], "inputs": record["inputs"]})
    page.write(output / REPORT)


def summary(record: dict[str, Any]) -> str:
    """The figures in one line."""
    low, high = record["volumes"]["window_hu"]
    return (
        f"PSNR {record['psnr_db']:.1f} dB, SSIM {record['ssim']:.3f}, MAE {record['mae_hu']:.1f} HU "
        f"in {low:g} to {high:g} HU"
    )
