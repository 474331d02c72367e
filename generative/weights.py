"""Weights on disk: NAME.safetensors with the tensors, and NAME.json beside it with everything else about them.

The JSON is written last and holds the tensors' hash: a pair that is half-written or mixed up is noticed.
"""

import hashlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.files import atomic_path, write_json
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.networks.architectures import Architecture, architecture, name_of
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.weights_description import check_description
from nnunet_difftumor.json_checks import load_json

VERSION = 1
# Of tensors as they are saved.
_TYPES = {torch.float32: "F32", torch.bool: "BOOL", torch.int64: "I64"}


@dataclass(frozen=True)
class Volumes:
    """The volumes that a network was trained with.

    Attributes:
        window_hu: mapped to -1 and 1; values beyond are clipped.
        spacing_mm: voxel size along the network's axes.
        axes: the network's axes, each in the direction of increasing index: S to superior, R to the patient's right,
            A to anterior.
    """

    window_hu: tuple[float, float] = (-175.0, 250.0)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    axes: str = "SRA"


@dataclass(frozen=True)
class DiffusionSettings:
    """What a diffusion model draws, and how.

    Attributes:
        organ: whose tumors it draws.
        stage: early (tiny and small tumors) or late (medium and large ones).
        steps: of the schedule it was trained with.
        sampler: ddpm or ddim.
        sampler_steps: how many steps the sampler takes; those of the schedule for ddpm.
        codebook_sha256: of the autoencoder's codes, which it needs.
        patch_size: voxels along the network's axes that it was trained on, and is shown when it draws.
    """

    organ: str
    stage: str
    steps: int
    sampler: str
    sampler_steps: int
    codebook_sha256: str
    patch_size: tuple[int, int, int] = (96, 96, 96)


@dataclass(frozen=True)
class Description:
    """The JSON beside the tensors.

    Attributes:
        kind: autoencoder or diffusion.
        architecture: fields of the architecture's configuration, such as AutoencoderConfig or UNetConfig.
        volumes: what the network sees.
        codebook_range: smallest and largest value of the codes; autoencoder only.
        diffusion: diffusion model only.
        source: free text and figures: files and their hashes, training data, settings, commit.
        network: name of the architecture in `architectures`, filled in when saved; None: the published one, as in files
            that have no name.
        sha256: of the safetensors file; filled in when saved.
        version: of this format.
    """

    kind: str
    architecture: dict[str, Any]
    volumes: Volumes = field(default_factory=Volumes)
    codebook_range: tuple[float, float] | None = None
    diffusion: DiffusionSettings | None = None
    source: dict[str, Any] = field(default_factory=dict)
    network: str | None = None
    sha256: str = ""
    version: int = VERSION


def save_weights(path: Path, module: nn.Module, *, description: Description) -> None:
    """Writes PATH (.safetensors) and the JSON beside it.

    Raises:
        InputError: for another suffix, a class that is not listed in `architectures`, or weights that are not finite.
    """
    path = _with_suffix(path)
    network = name_of(description.kind, module)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    check_finite(str(path), tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)
    content = asdict(description) | {"network": network, "sha256": file_sha256(path)}
    write_json(path.with_suffix(".json"), content)


def read_description(path: Path) -> Description:
    """The JSON beside PATH (.safetensors).

    Raises:
        InputError: if it is missing, not of this format or version, or says what cannot be true of any weights.
    """
    page = _with_suffix(path).with_suffix(".json")
    try:
        content = load_json(page)
        if content.get("version") != VERSION:
            raise InputError(f"{page}: version {shown(content.get('version'))}; this program reads version {VERSION}")
        unknown = set(content) - {item.name for item in fields(Description)}
        if unknown:
            raise InputError(f"{page}: unknown keys {shown(sorted(unknown))}")
        check_description(content, where=str(page))
        volumes = content["volumes"]
        for key in ("window_hu", "spacing_mm"):
            volumes[key] = tuple(volumes[key])
        content["volumes"] = Volumes(**volumes)
        if content["codebook_range"] is not None:
            content["codebook_range"] = tuple(content["codebook_range"])
        if content["diffusion"] is not None:
            diffusion = content["diffusion"]
            content["diffusion"] = DiffusionSettings(**diffusion | {"patch_size": tuple(diffusion["patch_size"])})
        return Description(**content)
    except FileNotFoundError as error:
        raise InputError(f"{page}: no such file; it belongs beside {path}") from error
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{page}: not the description of weights ({error})") from error


def config_of(path: Path, description: Description) -> Any:
    """The configuration of the network that PATH (.safetensors) holds, such as AutoencoderConfig or UNetConfig.

    Raises:
        InputError: for an unknown architecture, or sizes that it does not have or that are not possible.
    """
    try:
        return _architecture(path, description).config(**description.architecture)
    except TypeError as error:
        raise InputError(f"{Path(path).with_suffix('.json')}: architecture: {error}") from error


class LoadedAutoencoder(NamedTuple):
    """An autoencoder that several diffusion models share.

    Attributes:
        path: of its weights.
        model: in evaluation mode.
        description: what is stored with it.
    """

    path: Path
    model: Autoencoder
    description: Description


def load_autoencoder(path: Path) -> tuple[Autoencoder, Description]:
    """Autoencoder in evaluation mode on the CPU, and its description.

    Raises:
        InputError: for damaged or foreign files, an unknown architecture, or tensors that do not fit it.
    """
    description = _expect(path, "autoencoder")
    return _network(path, description).eval(), description


def load_diffusion(path: Path, *, autoencoder: Path | LoadedAutoencoder) -> tuple[LatentDiffusion, Description]:
    """Diffusion model with its autoencoder, in evaluation mode on the CPU, and the diffusion model's description.

    Args:
        path: of the diffusion model.
        autoencoder: path of its weights; or one that is there, which becomes a part of the model as it is.

    Raises:
        InputError: as `load_autoencoder`, and if it was trained with another autoencoder.
    """
    description = _expect(path, "diffusion")
    if not isinstance(autoencoder, LoadedAutoencoder):
        autoencoder = LoadedAutoencoder(autoencoder, *load_autoencoder(autoencoder))
    where, first_stage, of_autoencoder = autoencoder
    if codebook_sha256(first_stage.codebook.embeddings) != description.diffusion.codebook_sha256:
        raise InputError(f"{path}: trained with another autoencoder than {where} (their codebooks differ)")
    if of_autoencoder.volumes != description.volumes:
        raise InputError(f"{path}: made for {description.volumes}, while {where} is for {of_autoencoder.volumes}")
    unet = _network(path, description)
    return LatentDiffusion(first_stage, unet, steps=description.diffusion.steps).eval(), description


def file_sha256(path: Path) -> str:
    """Hexadecimal hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def codebook_sha256(embeddings: torch.Tensor) -> str:
    """Hexadecimal hash of the codes' float32 values."""
    return hashlib.sha256(embeddings.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


def stored_codebook_sha256(path: Path) -> str:
    """`codebook_sha256` of the autoencoder in PATH (.safetensors), of which nothing else is read.

    Raises:
        InputError: if it is missing, damaged or no autoencoder.
    """
    try:
        with safetensors.safe_open(_with_suffix(path), framework="pt") as file:
            return codebook_sha256(file.get_tensor("codebook.embeddings"))
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as an autoencoder ({error})") from error


def check_finite(where: str, tensors: dict[str, torch.Tensor]) -> None:
    """Raises an InputError that names the first tensors with NaN or infinity."""
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise InputError(
            f"{where}: NaN or infinity in {', '.join(bad[:3])}{more}; training diverged or the file is damaged"
        )


def _with_suffix(path: Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a .safetensors file")
    return path


def _expect(path: Path, kind: str) -> Description:
    description = read_description(path)
    if description.kind != kind or (kind == "diffusion") != (description.diffusion is not None):
        raise InputError(f"{path}: holds a model of the kind {description.kind}, expected {kind}")
    return description


def _architecture(path: Path, description: Description) -> Architecture:
    try:
        return architecture(description.kind, description.network)
    except InputError as error:
        raise InputError(f"{Path(path).with_suffix('.json')}: {error}") from error


def _network(path: Path, description: Description) -> Any:
    # Without memory, until the file is known to fill it: a line of JSON may ask for any size.
    with torch.device("meta"):
        model = _architecture(path, description).network(config_of(path, description))
    path = _with_suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if file_sha256(path) != description.sha256:
        raise InputError(f"{path}: not the file that its JSON describes (the hashes differ); get or make both again")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            _check_types(path, {name: part.get_dtype() for name, part in slices.items()}, model)
            _check_shapes(str(path), {name: tuple(part.get_shape()) for name, part in slices.items()}, model)
        tensors = load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a safetensors file ({error})") from error
    check_finite(str(path), tensors)
    model = model.to_empty(device="cpu")
    model.load_state_dict(tensors)
    return model


def _check_types(path: Path, types: dict[str, str], model: nn.Module) -> None:
    expected = {name: _TYPES[tensor.dtype] for name, tensor in model.state_dict().items()}
    wrong = [f"{name} is {types[name]}" for name in expected if types.get(name, expected[name]) != expected[name]]
    if wrong:
        raise InputError(f"{path}: {len(wrong)} tensors of other types than were saved: {', '.join(wrong[:3])}")


def check_shapes(where: str, tensors: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Raises an InputError unless the names and shapes are exactly the model's."""
    _check_shapes(where, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, model)


def _check_shapes(where: str, shapes: dict[str, tuple[int, ...]], model: nn.Module) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    wrong = [
        f"{name} is {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    for what, names in (("missing", missing), ("unknown", extra), ("of wrong shape", wrong)):
        if names:
            more = " ..." if len(names) > 3 else ""
            raise InputError(f"{where}: {len(names)} tensors {what}: {', '.join(names[:3])}{more}")
