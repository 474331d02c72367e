"""The manifest of `synthesize`: what was put where, into which files, by which versions; enough to do it again."""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_difftumor import __version__
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.ct.anonymous import UNNAMED
from nnunet_difftumor.ct.dicom.study import sha256_of_scan
from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.names import is_plain_name
from nnunet_difftumor.synthesis.networks.modes import EXACT, MODES
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.renderers import RENDERERS
from nnunet_difftumor.synthesis.spec import TumorSpec

MANIFEST = "manifest.json"
_KEYS = {"inputs", "settings", "organ", "renderer", "tumors", "not_placed"}


def read_manifest(path: str | Path) -> dict:
    """Reads a manifest and checks everything that a replay uses.

    Raises:
        InputError: if it cannot be read or is not a manifest of `difftumor synthesize`.
    """
    try:
        record = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a manifest ({error})") from error
    if not isinstance(record, dict) or not set(record) >= _KEYS:
        raise InputError(f"{path}: is not a manifest of `difftumor synthesize`; expected the keys {sorted(_KEYS)}")
    try:
        specs_of(record)
        Organ.from_dict(record["organ"])
        hashes = [record["inputs"][name][key] for name in ("ct", "organ_mask") for key in ("file", "sha256")]
        hashes += _texts_of_renderer(record["renderer"])
        files = record.get("files", {})
        for name in files:
            if not is_plain_name(name.replace(".", "_")):
                raise InputError(f"files names {shown(name)}, expected a plain file name")
        hashes += files.values()
        if not all(isinstance(text, str) for text in hashes):
            raise TypeError("file names and SHA-256 are strings")
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path}: the manifest is damaged ({error}); give one that synthesize wrote") from error
    return record


def tumor_text(number: int, tumor: Mapping[str, Any]) -> str:
    """Number, size and contrast of a manifest's tumor, as they are printed and stand in pictures."""
    contrast = tumor["measured_contrast_hu"]
    size = f"{tumor['spec']['size_class']} {tumor['equivalent_diameter_mm']:.1f} mm"
    return f"#{number} {size} {'without room' if contrast is None else f'{contrast:+.0f} HU'}"


def specs_of(record: dict) -> list[TumorSpec]:
    """The tumors of a manifest."""
    return [TumorSpec.from_dict(tumor["spec"]) for tumor in record["tumors"]]


def hashes_of_inputs(ct: str | Path, organ_mask: str | Path, *, anonymous: bool) -> dict[str, dict[str, str]]:
    """Name, unless it is to be left out, and SHA-256 of the two inputs (see `sha256_of_scan`).

    Raises:
        InputError: if one cannot be read.
    """
    return {
        name: {"file": UNNAMED if anonymous else Path(path).name, "sha256": sha256_of_scan(Path(path))}
        for name, path in _named(ct, organ_mask)
    }


def hashes_of_outputs(output: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files that were written, by name."""
    return {name: sha256_of_scan(output / name) for name in names}


def altered_outputs(output: Path, record: dict, names: Iterable[str]) -> list[str]:
    """Which outputs are missing, or are not what was written.

    Args:
        output: folder of the result.
        record: its manifest. Those of earlier versions have no hashes of files: the tumor mask is compared by content,
            and the CT has to be readable.
        names: of the outputs that every such result has.
    """
    names = dict.fromkeys([*names, *record.get("files", {})])
    missing = [name for name in names if not (output / name).is_file()]
    if "files" in record:
        kept = {name: digest for name, digest in record["files"].items() if name not in missing}
        return missing + [name for name, digest in kept.items() if sha256_of_scan(output / name) != digest]
    if missing or "outputs" not in record:
        return missing
    try:
        read_ct(output / "ct.nii.gz")
    except InputError:
        return ["ct.nii.gz"]
    try:
        mask = np.ascontiguousarray(read_labels(output / "tumor_mask.nii.gz"), np.uint8)
        same = hashlib.sha256(mask.data).hexdigest() == record["outputs"]["tumor_mask_sha256"]
    except InputError:
        same = False
    return [] if same else ["tumor_mask.nii.gz"]


def check_inputs(record: dict, ct: str | Path, organ_mask: str | Path, *, manifest: str | Path) -> None:
    """Refuses files that are not those of the manifest.

    Raises:
        InputError: names the file that differs.
    """
    for name, path in _named(ct, organ_mask):
        expected, seen = record["inputs"][name], sha256_of_scan(Path(path))
        if seen != expected["sha256"]:
            raise InputError(
                f"{path}: SHA-256 is {seen[:12]}..., but {manifest} was made from {expected['file']} "
                f"with {expected['sha256'][:12]}...; give that file"
            )


def versions(*, renderer: str) -> dict[str, str]:
    """Of this package and of what a renderer's voxels depend on."""
    import scipy

    found = {
        "nnunet_difftumor": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
    if renderer == "diffusion":
        import torch

        found["torch"] = torch.__version__
    return found


def _texts_of_renderer(renderer: dict) -> list[str]:
    """What a replay needs to be text in the record of a renderer; the rest it needs is looked up."""
    if renderer["name"] not in RENDERERS:
        raise TypeError(f"the renderer is one of {', '.join(RENDERERS)}")
    if renderer["name"] == "handcrafted":
        return []
    if not isinstance(renderer["threads"], int) or renderer["threads"] < 1:
        raise TypeError("threads of the renderer are a whole number above 0")
    if renderer.get("mode", EXACT) not in MODES:
        raise TypeError(f"the mode of the renderer is one of {', '.join(MODES)}")
    if not isinstance(renderer.get("sampler_steps"), int | None):
        raise TypeError("sampler_steps of the renderer are a whole number, or null")
    texts = [renderer[key] for key in ("device", "organ")]
    return texts + [file[key] for file in renderer["weights"] for key in ("file", "sha256")]


def _named(ct: str | Path, organ_mask: str | Path) -> tuple[tuple[str, str | Path], ...]:
    return (("ct", ct), ("organ_mask", organ_mask))
