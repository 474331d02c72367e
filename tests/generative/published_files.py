"""Small files with the layout of the published ones, made from models of this package."""

import re
import sys
import types
from pathlib import Path

import torch

from nnunet_difftumor.generative.diffusion.schedule import CosineSchedule
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet

_LEVEL = ("residual1", "residual2", "spatial_attention", "depth_attention", "resample")


def autoencoder_tensors(model: Autoencoder) -> dict[str, torch.Tensor]:
    """State under the published names."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "codebook.initialized":
            continue
        name = name.replace("codebook.counts", "codebook.N").replace("codebook.sums", "codebook.z_avg")
        name = name.replace(".stages.", ".conv_blocks.").replace("to_latent.", "pre_vq_conv.")
        name = name.replace("from_latent.", "post_vq_conv.")
        name = re.sub(r"\.(final|first)_norm\.", ".final_block.0.", name)
        inner = "convt" if ".up." in name else "conv"
        if not re.search(r"norm\d\.|final_block|codebook", name):
            name = re.sub(r"\.(weight|bias)$", rf".{inner}.\1", name)
        tensors[name] = tensor
    return tensors


def unet_tensors(model: UNet) -> dict[str, torch.Tensor]:
    """State under the published names and with the published shapes."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "frequencies":
            continue
        for position, part in enumerate(_LEVEL):
            name = re.sub(rf"^(down|up)\.(\d+)\.{part}\.", rf"\1s.\2.{position}.", name)
        for own, published in (
            ("position_bias.table", "time_rel_pos_bias.relative_attention_bias"),
            ("time_embedding.linear1", "time_mlp.1"),
            ("time_embedding.linear2", "time_mlp.3"),
            ("conv_first", "init_conv"),
            ("first_attention", "init_temporal_attn"),
            ("middle_residual", "mid_block"),
            ("middle_spatial_attention", "mid_spatial_attn"),
            ("middle_depth_attention", "mid_temporal_attn"),
            ("last_residual", "final_conv.0"),
            ("conv_last", "final_conv.1"),
            ("modulation", "mlp.1"),
            ("shortcut", "res_conv"),
        ):
            name = name.replace(own, published)
        name = re.sub(r"\.conv(\d)\.", r".block\1.proj.", name)
        name = re.sub(r"\.norm(\d)\.", r".block\1.norm.", name)
        linear = re.match(r"(down|up)s\.\d+\.2\.", name)
        if re.search(r"\.to_(qkv|out)\.", name):
            name = re.sub(r"\.to_", ".fn.fn.to_" if linear else ".fn.fn.fn.to_", name)
            if linear and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        elif name.endswith(".norm.weight") and ".block" not in name:
            name, tensor = name.replace(".norm.weight", ".fn.norm.gamma"), tensor.view(1, -1, 1, 1, 1)
        elif tensor.ndim == 4:
            tensor = tensor.unsqueeze(2)
        tensors[name] = tensor
        if name.endswith(".fn.fn.fn.to_qkv.weight") and not name.startswith("mid_spatial"):
            tensors[name.replace("to_qkv.weight", "rotary_emb.freqs")] = model.frequencies
    return tensors


def write_autoencoder(path: Path, model: Autoencoder, monkeypatch, **changed) -> Path:
    """A Lightning checkpoint with settings in objects of a package that is not installed."""
    state = autoencoder_tensors(model) | {
        "image_discriminator.model0.0.weight": torch.ones(2, 1, 4, 4),
        "perceptual_model.lin0.model.1.weight": torch.ones(1, 5, 1, 1),
    }
    module = types.ModuleType("omegaconf")
    for name in ("DictConfig", "ListConfig", "AnyNode"):
        setattr(module, name, type(name, (), {"__module__": "omegaconf", "__qualname__": name}))

    def node(value):
        kinds = {dict: "DictConfig", list: "ListConfig"}
        made = getattr(module, kinds.get(type(value), "AnyNode"))()
        if isinstance(value, dict):
            made._content = {key: node(inner) for key, inner in value.items()}
        elif isinstance(value, list):
            made._content = [node(inner) for inner in value]
        else:
            made._val = value
        return made

    settings = {
        "dataset": {"image_channels": 1},
        "model": {"downsample": list(model.config.downsampling), "num_groups": model.config.norm_groups},
    }
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "1.6.4",
        "state_dict": state,
        "hparams_name": "kwargs",
        "hyper_parameters": {"cfg": node(settings)},
    }
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", module)
        torch.save(content | changed, path)
    return path


def write_diffusion(path: Path, unet: UNet, *, autoencoder: Autoencoder, steps: int, **changed) -> Path:
    """A file with `ema`, and `model` that differs from it."""
    schedule = CosineSchedule(steps)
    shared = {"betas": schedule.betas, "alphas_cumprod": schedule.signal}
    shared |= {f"vqgan.{name}": tensor for name, tensor in autoencoder_tensors(autoencoder).items()}
    tensors = unet_tensors(unet)
    ema = shared | {f"denoise_fn.{name}": tensor for name, tensor in tensors.items()}
    model = shared | {f"denoise_fn.{name}": tensor + 1 for name, tensor in tensors.items()}
    for name, tensor in changed.items():
        ema[name] = tensor
    torch.save({"step": 7, "model": model, "ema": ema, "scaler": None}, path)
    return path
