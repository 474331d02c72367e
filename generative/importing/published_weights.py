"""The DiffTumor authors' files as weights of this package: names and checks.

Facts about the files: AutoencoderModel.ckpt is a Lightning checkpoint of the autoencoder with its discriminators and
perceptual network; {liver,pancreas,kidney}_{early,noearly}.pt hold the diffusion model twice ("model" and its moving
average "ema", which is used), each with a copy of the autoencoder.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.files import only_writer
from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.generative.importing.checkpoint_reader import Checkpoint, StoredTensor, open_checkpoint
from nnunet_difftumor.generative.importing.published_architecture import autoencoder_config, unet_config
from nnunet_difftumor.generative.importing.shared_weights import import_shared
from nnunet_difftumor.generative.networks.attention import rotary_frequencies
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet
from nnunet_difftumor.generative.registry import KnownFile, known_file
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS
from nnunet_difftumor.generative.weights import (
    Description,
    DiffusionSettings,
    check_finite,
    check_shapes,
    codebook_sha256,
    file_sha256,
    load_autoencoder,
    read_description,
    save_weights,
)
from nnunet_difftumor.generative.weights_folder import (
    AUTOENCODER_FILE,
    check_stage,
    default_weights_folder,
    diffusion_file,
)
from nnunet_difftumor.names import check_plain_name, path_inside

# Steps of the published sampler for medium and large tumors; early models take every step of theirs.
DDIM_STEPS = 50
# The published early models have 4 steps, the others 200.
_FEW_STEPS = 10

_IGNORED_OF_AUTOENCODER = {
    "image_discriminator.": "slice discriminator",
    "video_discriminator.": "volume discriminator",
    "perceptual_model.": "perceptual network (LPIPS)",
}
_AUTOENCODER_NAMES = (
    (r"^(encoder|decoder)\.conv_blocks\.", r"\1.stages."),
    (r"^encoder\.final_block\.0\.", "encoder.final_norm."),
    (r"^decoder\.final_block\.0\.", "decoder.first_norm."),
    (r"^pre_vq_conv\.", "to_latent."),
    (r"^post_vq_conv\.", "from_latent."),
    (r"^codebook\.N$", "codebook.counts"),
    (r"^codebook\.z_avg$", "codebook.sums"),
    (r"\.(conv|convt)\.(weight|bias)$", r".\2"),
)
_LEVEL = ("residual1", "residual2", "spatial_attention", "depth_attention", "resample")
_UNET_NAMES = (
    (r"^time_rel_pos_bias\.relative_attention_bias\.", "position_bias.table."),
    (r"^time_mlp\.1\.", "time_embedding.linear1."),
    (r"^time_mlp\.3\.", "time_embedding.linear2."),
    (r"^init_conv\.", "conv_first."),
    (r"^init_temporal_attn\.", "first_attention."),
    *((rf"^(down|up)s\.(\d+)\.{position}\.", rf"\1.\2.{name}.") for position, name in enumerate(_LEVEL)),
    (r"^mid_block(\d)\.", r"middle_residual\1."),
    (r"^mid_spatial_attn\.", "middle_spatial_attention."),
    (r"^mid_temporal_attn\.", "middle_depth_attention."),
    (r"^final_conv\.0\.", "last_residual."),
    (r"^final_conv\.1\.", "conv_last."),
    (r"\.block(\d)\.proj\.", r".conv\1."),
    (r"\.block(\d)\.norm\.", r".norm\1."),
    (r"\.mlp\.1\.", ".modulation."),
    (r"\.res_conv\.", ".shortcut."),
    (r"\.norm\.gamma$", ".norm.weight"),
    (r"\.fn(\.fn)*\.", "."),
)
_FREQUENCIES = ".rotary_emb.freqs"


@dataclass(frozen=True)
class Imported:
    """One imported file.

    Attributes:
        file: that was imported.
        path: where its weights are now.
        description: what is stored with them.
        ignored: number of values by part of the file that was not needed.
        known_as: the published file that it is, by its hash; None if that is not known.
    """

    file: Path
    path: Path
    description: Description
    ignored: dict[str, int]
    known_as: KnownFile | None

    def lines(self) -> list[str]:
        """What became of the file, for people."""
        settings = self.description.diffusion
        what = (
            "autoencoder"
            if settings is None
            else f"{settings.organ}, {settings.stage}: {settings.steps} steps, sampled by {settings.sampler} in "
            f"{settings.sampler_steps}"
        )
        return [
            f"{self.path}: {what}",
            f"  from {self.file}",
            f"  by its hash: {self.known_as or 'no published file that this version knows'}",
            *(f"  ignored: {part}, {values} values" for part, values in self.ignored.items()),
        ]


def import_weights(
    files: Iterable[str | Path],
    output: str | Path | None = None,
    *,
    organ: str | None = None,
    stage: str | None = None,
) -> list[Imported]:
    """Turns published files into safetensors and JSON in a folder. Nothing in the files is executed.

    Args:
        files: the authors' autoencoder (.ckpt), diffusion models (.pt), or both; or .safetensors with their JSON, which
            are checked and copied. Without an autoencoder it is the one that was imported into `output` before.
        output: folder; existing weights of the same name are replaced. None: `difftumor_weights` in the folder that
            nnUNet_results names.
        organ: of the diffusion model, a name of 1 to 64 letters, digits, _ and -; None takes that of the published
            file, if its hash is known, or one of the published organs that is in the file's name.
        stage: early or late; None takes it from the number of steps, 10 or fewer being early.

    Returns:
        One entry per file, the autoencoder first.

    Raises:
        InputError: for files that are damaged, no checkpoints, of another architecture or not finite, or a diffusion
            model of another autoencoder, or of another organ than its name says. Files before the faulty one are
            imported then.
    """
    if organ is not None:
        check_plain_name(organ, where="organ")
    if stage is not None:
        check_stage(stage, where="stage")
    output = default_weights_folder(option="`output`") if output is None else Path(output)
    with only_writer(output):
        done: list[Imported] = []
        diffusion: list[Path] = []
        for file in map(Path, files):
            if _kind_of(file) == "diffusion":
                diffusion.append(file)
            elif done:
                raise InputError(f"{file}: a second autoencoder; import one at a time, each into its own folder")
            else:
                done.append(_import_autoencoder(file, output))
        if len(diffusion) > 1 and (organ or stage):
            raise InputError("organ, stage: can be given for one diffusion model at a time only")
        if diffusion and not (output / AUTOENCODER_FILE).is_file():
            raise InputError(f"{output}: holds no {AUTOENCODER_FILE} yet; give the autoencoder's .ckpt too")
        return done + [_import_diffusion(file, output, organ=organ, stage=stage) for file in diffusion]


def _kind_of(file: Path) -> str:
    if file.suffix == ".safetensors":
        return read_description(file).kind
    with open_checkpoint(file) as checkpoint:
        return _kind(checkpoint)


def _kind(checkpoint: Checkpoint) -> str:
    content = checkpoint.content
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        return "autoencoder"
    if isinstance(content, dict) and isinstance(content.get("ema"), dict):
        return "diffusion"
    seen = shown(list(content)) if isinstance(content, dict) else type(content).__name__
    raise InputError(
        f"{checkpoint.path}: neither an autoencoder (key state_dict) nor a diffusion model (key ema) of DiffTumor; "
        f"it holds {seen}"
    )


def autoencoder_from(checkpoint: Checkpoint) -> tuple[Autoencoder, dict[str, int]]:
    """The autoencoder of an open AutoencoderModel.ckpt, and how many values of which parts were ignored."""
    stored = _stored(checkpoint, checkpoint.content["state_dict"])
    wanted, ignored = _split(stored, _IGNORED_OF_AUTOENCODER)
    if "codebook.embeddings" not in wanted:
        raise InputError(f"{checkpoint.path}: has no codebook (codebook.embeddings); not DiffTumor's autoencoder")
    config = autoencoder_config(checkpoint, wanted)
    with torch.device("meta"):
        model = Autoencoder(config)
    fill_autoencoder(model, checkpoint.tensors(wanted), where=checkpoint.path)
    return model.eval(), ignored


def unet_from(checkpoint: Checkpoint, *, autoencoder: Autoencoder) -> tuple[UNet, int, dict[str, int]]:
    """The U-Net (moving average) of an open .pt, its number of diffusion steps, and what was ignored.

    Raises:
        InputError: if its codebook is not the autoencoder's, or its schedule not the cosine one.
    """
    path = checkpoint.path
    state = _stored(checkpoint, checkpoint.content["ema"])
    steps = _steps(checkpoint, state)
    codes = state.get("vqgan.codebook.embeddings")
    if codes is None:
        raise InputError(f"{path}: has no copy of its autoencoder's codebook; whether it fits cannot be checked")
    if not torch.equal(checkpoint.tensor(codes).float(), autoencoder.codebook.embeddings):
        raise InputError(f"{path}: was trained with another autoencoder (their codebooks differ)")
    prefix = "denoise_fn."
    wanted = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    ignored = {
        "copy of the autoencoder": sum(_numel(value) for name, value in state.items() if name.startswith("vqgan.")),
        "weights without moving average (model)": sum(
            _numel(value) for value in _stored(checkpoint, checkpoint.content.get("model", {})).values()
        ),
    }
    unknown = [name for name in state if not name.startswith((prefix, "vqgan.")) and "." in name]
    if unknown:
        raise InputError(f"{path}: {len(unknown)} unknown tensors: {', '.join(unknown[:3])}")

    with torch.device("meta"):
        model = UNet(unet_config(path, wanted))
    fill_unet(model, checkpoint.tensors(wanted), where=path)
    return model.eval(), steps, {name: number for name, number in ignored.items() if number}


def fill_autoencoder(model: Autoencoder, tensors: dict[str, torch.Tensor], *, where: Path) -> None:
    """Gives a model (also one on the device meta) tensors under the published names.

    Raises:
        InputError: naming `where`, for tensors that are missing, unknown, of another shape or not finite.
    """
    tensors = _renamed(tensors, kind="autoencoder", model=model, where=where)
    # Stored codes are trained ones: the codebook must not start again.
    tensors["codebook.initialized"] = torch.tensor(True)
    check_shapes(str(where), tensors, model)
    model.load_state_dict(tensors, assign=True)


def fill_unet(model: UNet, tensors: dict[str, torch.Tensor], *, where: Path) -> None:
    """Gives a model (also one on the device meta) tensors under the published names.

    Raises:
        InputError: as `fill_autoencoder`, and for rotary frequencies that are not the usual ones or differ by block.
    """
    frequencies = {name: tensor.float() for name, tensor in tensors.items() if name.endswith(_FREQUENCIES)}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in frequencies}
    if not frequencies:
        raise InputError(f"{where}: has no rotary frequencies (*{_FREQUENCIES}); not DiffTumor's diffusion model")
    head_dim = model.config.head_dim
    usual, first = rotary_frequencies(head_dim), next(iter(frequencies.values()))
    for name, found in frequencies.items():
        # Some versions of the library count them as parameters, so that a moving average may have moved them a little.
        if found.shape != usual.shape or not torch.allclose(found, usual, rtol=0.1) or not torch.equal(found, first):
            raise InputError(f"{where}: {name} are not the rotary frequencies for {head_dim} channels")
    tensors = _renamed(tensors, kind="unet", model=model, where=where)
    # Those of the file, not computed ones: they may differ in the last digit.
    tensors["frequencies"] = first
    check_shapes(str(where), tensors, model)
    model.load_state_dict(tensors, assign=True)


def published_name(name: str, *, kind: str) -> str:
    """Name in this package of a tensor of the authors' autoencoder or U-Net ("unet"), without its prefix."""
    for pattern, replacement in _AUTOENCODER_NAMES if kind == "autoencoder" else _UNET_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _import_autoencoder(file: Path, output: Path) -> Imported:
    if file.suffix == ".safetensors":
        return _import_shared(file, output)
    with open_checkpoint(file) as checkpoint:
        model, ignored = autoencoder_from(checkpoint)
        source, known = _source(checkpoint)
    lowest, highest = (value.item() for value in model.codebook.embeddings.aminmax())
    description = Description(
        kind="autoencoder",
        architecture=asdict(model.config),
        codebook_range=(lowest, highest),
        source=source,
    )
    path = output / AUTOENCODER_FILE
    save_weights(path, model, description=description)
    return Imported(file, path, description, ignored, known)


def _import_diffusion(file: Path, output: Path, *, organ: str | None, stage: str | None) -> Imported:
    if file.suffix == ".safetensors":
        if organ or stage:
            raise InputError(f"{file}: its JSON says organ and stage; leave `organ` and `stage` out")
        return _import_shared(file, output)
    autoencoder, of_autoencoder = load_autoencoder(output / AUTOENCODER_FILE)
    with open_checkpoint(file) as checkpoint:
        model, steps, ignored = unet_from(checkpoint, autoencoder=autoencoder)
        source, known = _source(checkpoint)
    organ = organ or _organ_of(file, known)
    few = steps <= _FEW_STEPS
    stage = stage or ("early" if few else "late")
    if not few and steps % DDIM_STEPS:
        raise InputError(f"{file}: its {steps} steps are not a multiple of the sampler's {DDIM_STEPS}")
    settings = DiffusionSettings(
        organ=organ,
        stage=stage,
        steps=steps,
        sampler="ddpm" if few else "ddim",
        sampler_steps=steps if few else DDIM_STEPS,
        codebook_sha256=codebook_sha256(autoencoder.codebook.embeddings),
    )
    description = Description(
        kind="diffusion",
        architecture=asdict(model.config),
        volumes=of_autoencoder.volumes,
        diffusion=settings,
        source=source,
    )
    path = path_inside(output, diffusion_file(organ, stage))
    save_weights(path, model, description=description)
    return Imported(file, path, description, ignored, known)


def _import_shared(file: Path, output: Path) -> Imported:
    path, description, known = import_shared(file, output)
    return Imported(file, path, description, {}, known)


def _organ_of(path: Path, known: KnownFile | None) -> str:
    named = [organ for organ in PUBLISHED_ORGANS if organ in path.stem.lower()]
    if known is not None and known.organ is not None:
        if named and known.organ not in named:
            raise InputError(f"{path}: is {known} by its hash, its name says another organ; give the organ (`organ`)")
        return known.organ
    if len(named) != 1:
        raise InputError(
            f"{path}: its name does not say one of {', '.join(PUBLISHED_ORGANS)}; give the organ (`organ`)"
        )
    return named[0]


def _source(checkpoint: Checkpoint) -> tuple[dict[str, Any], KnownFile | None]:
    """For the description, and the published file that this is."""
    sha256 = file_sha256(checkpoint.path)
    known = known_file(sha256)
    source: dict[str, Any] = {"imported_from": checkpoint.path.name, "imported_sha256": sha256}
    return source | {"published_as": None if known is None else asdict(known)}, known


def _stored(checkpoint: Checkpoint, state: Any) -> dict[str, StoredTensor]:
    """The tensors of a state dict, checked to be nothing else."""
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, StoredTensor) for name, value in state.items()
    ):
        raise InputError(f"{checkpoint.path}: its state dict holds other things than named tensors; file refused")
    return state


def _numel(stored: StoredTensor) -> int:
    total = 1
    for size in stored.shape:
        total *= size
    return total


def _split(
    stored: dict[str, StoredTensor], ignorable: dict[str, str]
) -> tuple[dict[str, StoredTensor], dict[str, int]]:
    """Tensors to use, and how many values of each part are not."""
    wanted, ignored = {}, {}
    for name, value in stored.items():
        part = next((text for prefix, text in ignorable.items() if name.startswith(prefix)), None)
        if part is None:
            wanted[name] = value
        else:
            ignored[part] = ignored.get(part, 0) + _numel(value)
    return wanted, ignored


def _renamed(
    tensors: dict[str, torch.Tensor], *, kind: str, model: torch.nn.Module, where: Path
) -> dict[str, torch.Tensor]:
    """Tensors in float32 under this package's names; axes of length 1 are dropped where the model has none."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        new = published_name(name, kind=kind)
        if new in renamed:
            raise InputError(f"{where}: {name} occurs twice under different names; file refused")
        shape = shapes.get(new)
        if shape is not None and _without_ones(shape) == _without_ones(tensor.shape):
            tensor = tensor.reshape(shape)
        renamed[new] = tensor.float()
    check_finite(str(where), renamed)
    return renamed


def _without_ones(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _steps(checkpoint: Checkpoint, state: dict[str, StoredTensor]) -> int:
    """Number of diffusion steps, after comparing the file's schedule with the cosine one."""
    if "betas" not in state or "alphas_cumprod" not in state:
        raise InputError(f"{checkpoint.path}: has no noise schedule (betas); not DiffTumor's diffusion model")
    betas, signal = (checkpoint.tensor(state[name]).float() for name in ("betas", "alphas_cumprod"))
    schedule = CosineSchedule(betas.numel()) if betas.ndim == 1 and betas.numel() else None
    if schedule is None or not torch.allclose(betas, schedule.betas, rtol=1e-4, atol=1e-7):
        raise InputError(f"{checkpoint.path}: its noise schedule is not the cosine one; it would sample wrongly")
    if not torch.allclose(signal, schedule.signal, rtol=1e-4, atol=1e-7):
        raise InputError(f"{checkpoint.path}: its noise schedule contradicts itself (alphas_cumprod); file refused")
    return schedule.steps
