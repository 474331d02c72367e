"""Sizes of the DiffTumor authors' networks, read from the tensors of their files and the settings beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.importing.checkpoint_reader import Checkpoint, Placeholder, StoredTensor
from nnunet_difftumor.generative.networks.autoencoder import AutoencoderConfig
from nnunet_difftumor.generative.networks.unet import UNetConfig

# How deep settings are looked for.
_DEPTH = 12


def autoencoder_config(checkpoint: Checkpoint, stored: dict[str, StoredTensor]) -> AutoencoderConfig:
    """Sizes from the tensors; downsampling per axis and norm groups, which no tensor tells, from the settings.

    Raises:
        InputError: if they are not those of DiffTumor's autoencoder.
    """
    path = checkpoint.path
    first = _shape(path, stored, "encoder.conv_first.conv.weight", axes=5)
    codes = _shape(path, stored, "codebook.embeddings", axes=2)
    stages = len({name.split(".")[2] for name in stored if name.startswith("encoder.conv_blocks.")})
    if stages == 0:
        raise InputError(f"{path}: its encoder has no stages; not DiffTumor's autoencoder")
    settings = _settings(checkpoint.content.get("hyper_parameters"))
    downsampling = settings.get("downsample", (2**stages,) * 3)
    groups = settings.get("num_groups", AutoencoderConfig.norm_groups)
    if not (isinstance(downsampling, tuple) and len(downsampling) == 3 and max(downsampling) == 2**stages):
        raise InputError(f"{path}: its settings say downsample {downsampling}, its encoder has {stages} stages")
    return AutoencoderConfig(
        channels=first[1],
        hidden_channels=first[0],
        latent_channels=codes[1],
        codes=codes[0],
        downsampling=downsampling,
        norm_groups=groups,
    )


def unet_config(path: Path, stored: dict[str, StoredTensor]) -> UNetConfig:
    """Sizes from the tensors.

    Raises:
        InputError: if they are not those of DiffTumor's diffusion model.
    """
    bias = _shape(path, stored, "time_rel_pos_bias.relative_attention_bias.weight", axes=2)
    first = _shape(path, stored, "init_conv.weight", axes=5)
    last = _shape(path, stored, "final_conv.1.weight", axes=5)
    qkv = _shape(path, stored, "init_temporal_attn.fn.fn.fn.to_qkv.weight", axes=2)
    levels = len({name.split(".")[1] for name in stored if name.startswith("downs.")})
    widths = [_shape(path, stored, f"downs.{i}.1.block1.proj.weight", axes=5)[0] for i in range(levels)]
    if not levels or any(width % first[0] for width in widths) or qkv[0] % (3 * bias[1]):
        raise InputError(f"{path}: its levels of {widths} channels or its heads are not DiffTumor's; file refused")
    return UNetConfig(
        latent_channels=last[0],
        condition_channels=first[1] - last[0],
        channels=first[0],
        multipliers=tuple(width // first[0] for width in widths),
        heads=bias[1],
        head_dim=qkv[0] // (3 * bias[1]),
    )


def _shape(path: Path, stored: dict[str, StoredTensor], name: str, *, axes: int) -> tuple[int, ...]:
    if name not in stored or len(stored[name].shape) != axes:
        seen = f"is {stored[name].shape}" if name in stored else "is missing"
        raise InputError(f"{path}: {name} {seen}, expected {axes} axes; not a model of DiffTumor")
    return stored[name].shape


def _settings(hyper_parameters: Any) -> dict[str, Any]:
    """`downsample` and `num_groups`, wherever they are in the (inert) settings object."""
    found: dict[str, Any] = {}
    _walk(hyper_parameters, lambda name, value: found.setdefault(name, value), depth=0, seen=set())
    wanted = {}
    if isinstance(value := _plain(found.get("num_groups")), int):
        wanted["num_groups"] = value
    value = _plain(found.get("downsample"))
    if isinstance(value, list) and all(isinstance(_plain(item), int) for item in value):
        wanted["downsample"] = tuple(_plain(item) for item in value)
    return wanted


def _plain(value: Any) -> Any:
    """The content of OmegaConf's nodes: their state has it under `_val` or `_content`."""
    for _ in range(_DEPTH):  # a node may be its own content
        if not isinstance(value, Placeholder):
            break
        state = value.state if isinstance(value.state, dict) else {}
        value = state.get("_val", state.get("_content"))
    return value


def _walk(value: Any, visit: Callable[[str, Any], Any], *, depth: int, seen: set[int]) -> None:
    """Visits names and values, every dictionary once: they may hold one another."""
    if isinstance(value, Placeholder):
        value = value.state
    if depth > _DEPTH or not isinstance(value, dict) or id(value) in seen:
        return
    seen.add(id(value))
    for name, inner in value.items():
        if isinstance(name, str):
            visit(name, inner)
            if name not in ("_parent", "_metadata"):
                _walk(inner, visit, depth=depth + 1, seen=seen)
