"""What the public DiffTumor code computes for one early tumor, step by step and in plain eager PyTorch, with the
weights of our modules: the baseline of `synthesis_cpu.py --renderer diffusion`.

Written from its documented behaviour (Chen et al., CVPR 2024): in its order of operations, with its padding as a step
of its own, three-dimensional convolutions with flat kernels, distances of all vectors to all codes, and a one-hot
matrix of int64 for a perplexity that nobody reads. Nothing is made slower on purpose, and nothing faster.
"""

import math

import torch
from einops import rearrange
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.networks.attention import DepthAttention, SpatialAttention, SpatialLinearAttention
from nnunet_difftumor.generative.networks.autoencoder import NORM_EPS, Autoencoder
from nnunet_difftumor.generative.networks.autoencoder import ResidualBlock as VolumeResidualBlock
from nnunet_difftumor.generative.networks.convolutions import GroupNormSiLU, SamePadConv3d, SamePadConvTranspose3d
from nnunet_difftumor.generative.networks.unet import Level, ResidualBlock, UNet

Tensor = torch.Tensor


def encode(model: Autoencoder, volume: Tensor) -> Tensor:
    """Latent before quantization."""
    encoder = model.encoder
    x = _same_pad(encoder.conv_first, volume)
    for stage in encoder.stages:
        x = _volume_residual(stage["res"], _same_pad(stage["down"], x))
    return _same_pad(model.to_latent, _norm_silu(encoder.final_norm, x))


def look_up(codebook: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (b, d, h, w) and codes (b, c, d, h, w)."""
    flat = rearrange(latent, "b c d h w -> (b d h w) c")
    distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codebook.t() + codebook.t().pow(2).sum(0, keepdim=True)
    indices = distances.argmin(1)
    usage = functional.one_hot(indices, len(codebook)).type_as(flat).mean(0)
    torch.exp(-(usage * torch.log(usage + 1e-10)).sum())  # the perplexity
    indices = indices.view(latent.shape[0], *latent.shape[2:])
    return indices, rearrange(functional.embedding(indices, codebook), "b d h w c -> b c d h w").contiguous()


def decode(model: Autoencoder, codes: Tensor) -> Tensor:
    """Volume of codes."""
    decoder = model.decoder
    x = _norm_silu(decoder.first_norm, _same_pad(model.from_latent, codes))
    for stage in decoder.stages:
        x = _same_pad_transposed(stage["up"], x)
        x = _volume_residual(stage["res2"], _volume_residual(stage["res1"], x))
    return _same_pad(decoder.conv_last, x)


def predict(model: UNet, noisy: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
    """The noise that one step of the U-Net predicts."""
    x = torch.cat((noisy, condition), dim=1)
    bias = _position_bias(model, x.shape[2])
    x = first = _flat(model.conv_first, x)
    x = _depth_attention(model.first_attention, x, bias, model.frequencies)
    time = _time(model, steps)
    skips = []
    for level in model.down:
        x = _level(level, x, time, bias, model.frequencies)
        skips.append(x)
        x = _resampled(level, x)
    x = _residual(model.middle_residual1, x, time)
    x = _spatial_attention(model.middle_spatial_attention, x)
    x = _depth_attention(model.middle_depth_attention, x, bias, model.frequencies)
    x = _residual(model.middle_residual2, x, time)
    for level in model.up:
        x = _level(level, torch.cat((x, skips.pop()), dim=1), time, bias, model.frequencies)
        x = _resampled(level, x)
    return _flat(model.conv_last, _residual(model.last_residual, torch.cat((x, first), dim=1), None))


def condition(model: LatentDiffusion, volume: Tensor, tumor: Tensor) -> Tensor:
    """Scaled latent of the masked volume, and the mask at the first voxel of each block."""
    codes = model.autoencoder.codebook.embeddings
    latent = encode(model.autoencoder, volume * (1 - tumor.float()))
    latent = (latent - codes.min()) / (codes.max() - codes.min()) * 2 - 1
    mask = functional.interpolate(2 * tumor.float() - 1, size=latent.shape[2:])
    return torch.cat((latent, mask), dim=1)


def sample(model: LatentDiffusion, condition: Tensor, noises: Tensor) -> Tensor:
    """All steps of DDPM; noises (steps + 1, b, c, d, h, w)."""
    schedule, z = model.schedule, noises[0]
    for drawn, step in zip(noises[1:], reversed(range(schedule.steps)), strict=True):
        predicted = predict(model.unet, z, torch.full((len(z),), step), condition)
        clean = schedule.sqrt_inverse_signal[step] * z - schedule.sqrt_inverse_signal_minus_1[step] * predicted
        mean = schedule.clean_weight[step] * clean.clamp(-1, 1) + schedule.noisy_weight[step] * z
        z = mean + float(step > 0) * (0.5 * schedule.posterior_variance[step].clamp(min=1e-20).log()).exp() * drawn
    return z


def unscaled(model: LatentDiffusion, latent: Tensor) -> Tensor:
    """The latent in the codebook's range."""
    codes = model.autoencoder.codebook.embeddings
    return (latent + 1) / 2 * (codes.max() - codes.min()) + codes.min()


def blend(volume: Tensor, decoded: Tensor, tumor: Tensor, *, sigma_voxels: float) -> Tensor:
    """Volume and picture in [0, 1], by a mask that is blurred on the CPU."""
    blurred = gaussian_filter(tumor.cpu().numpy().astype("float32"), (0, 0, *[sigma_voxels] * 3))
    weight = torch.from_numpy(blurred).to(volume)
    return ((1 - weight) * ((volume + 1) / 2).clamp(0, 1) + weight * ((decoded + 1) / 2).clamp(0, 1)).clamp(0, 1)


def _same_pad(conv: SamePadConv3d, x: Tensor) -> Tensor:
    return functional.conv3d(
        functional.pad(x, conv.replication, mode="replicate"), conv.weight, conv.bias, stride=conv.stride
    )


def _same_pad_transposed(conv: SamePadConvTranspose3d, x: Tensor) -> Tensor:
    x = functional.pad(x, conv.replication, mode="replicate")
    return functional.conv_transpose3d(x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding)


def _norm_silu(norm: GroupNormSiLU, x: Tensor) -> Tensor:
    x = functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, NORM_EPS)
    return x * torch.sigmoid(x)


def _volume_residual(block: VolumeResidualBlock, x: Tensor) -> Tensor:
    h = _same_pad(block.conv1, _norm_silu(block.norm1, x))
    return x + _same_pad(block.conv2, _norm_silu(block.norm2, h))


def _flat(conv, x: Tensor) -> Tensor:
    """A convolution of slices, as a three-dimensional one whose kernel is flat."""
    transposed = isinstance(conv, torch.nn.ConvTranspose2d)
    operation = functional.conv_transpose3d if transposed else functional.conv3d
    stride, padding = (1, *conv.stride), (0, *conv.padding)
    return operation(x, conv.weight[:, :, None], conv.bias, stride=stride, padding=padding)


def _resampled(level: Level, x: Tensor) -> Tensor:
    return x if isinstance(level.resample, torch.nn.Identity) else _flat(level.resample, x)


def _time(model: UNet, steps: Tensor) -> Tensor:
    embedding = model.time_embedding
    half = embedding.channels // 2
    waves = steps[:, None] * torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))[None]
    return embedding.linear2(functional.gelu(embedding.linear1(torch.cat((waves.sin(), waves.cos()), dim=-1))))


def _position_bias(model: UNet, depth: int) -> Tensor:
    return rearrange(model.position_bias.table(model.position_bias.buckets(depth)), "i j h -> h i j")


def _residual(block: ResidualBlock, x: Tensor, time: Tensor | None) -> Tensor:
    h = functional.group_norm(_flat(block.conv1, x), block.norm1.num_groups, block.norm1.weight, block.norm1.bias)
    if block.modulation is not None:
        scale, shift = rearrange(block.modulation(functional.silu(time)), "b c -> b c 1 1 1").chunk(2, dim=1)
        h = h * (scale + 1) + shift
    h = functional.silu(h)
    h = functional.group_norm(_flat(block.conv2, h), block.norm2.num_groups, block.norm2.weight, block.norm2.bias)
    h = functional.silu(h)
    return h + (x if isinstance(block.shortcut, torch.nn.Identity) else _flat(block.shortcut, x))


def _level(level: Level, x: Tensor, time: Tensor, bias: Tensor, frequencies: Tensor) -> Tensor:
    x = _residual(level.residual2, _residual(level.residual1, x, time), time)
    x = _linear_attention(level.spatial_attention, x)
    return _depth_attention(level.depth_attention, x, bias, frequencies)


def _layer_norm(x: Tensor, gain: Tensor) -> Tensor:
    variance, mean = torch.var(x, dim=1, unbiased=False, keepdim=True), torch.mean(x, dim=1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * gain.view(1, -1, 1, 1, 1)


def _linear_attention(block: SpatialLinearAttention, x: Tensor) -> Tensor:
    batch, _, _, height, _ = x.shape
    slices = rearrange(_layer_norm(x, block.norm.weight), "b c f h w -> (b f) c h w")
    qkv = functional.conv2d(slices, block.to_qkv.weight[:, :, None, None]).chunk(3, dim=1)
    q, k, v = (rearrange(part, "b (h c) x y -> b h c (x y)", h=block.heads) for part in qkv)
    q, k = q.softmax(dim=-2) * q.shape[-2] ** -0.5, k.softmax(dim=-1)
    context = torch.einsum("b h d n, b h e n -> b h d e", k, v)
    out = torch.einsum("b h d e, b h d n -> b h e n", context, q)
    out = rearrange(out, "b h c (x y) -> b (h c) x y", h=block.heads, x=height)
    out = functional.conv2d(out, block.to_out.weight[:, :, None, None], block.to_out.bias)
    return x + rearrange(out, "(b f) c h w -> b c f h w", b=batch)


def _spatial_attention(block: SpatialAttention, x: Tensor) -> Tensor:
    return x + _attention(block, x, "b c f h w -> b f (h w) c", None, None)


def _depth_attention(block: DepthAttention, x: Tensor, bias: Tensor, frequencies: Tensor) -> Tensor:
    return x + _attention(block, x, "b c f h w -> b (h w) f c", bias, frequencies)


def _attention(block, x: Tensor, sequences: str, bias: Tensor | None, frequencies: Tensor | None) -> Tensor:
    tokens = rearrange(_layer_norm(x, block.norm.weight), sequences)
    q, k, v = (rearrange(t, "... n (h d) -> ... h n d", h=block.heads) for t in block.to_qkv(tokens).chunk(3, dim=-1))
    q = q * q.shape[-1] ** -0.5
    if frequencies is not None:
        q, k = _rotated(q, frequencies), _rotated(k, frequencies)
    logits = torch.einsum("... h i d, ... h j d -> ... h i j", q, k)
    if bias is not None:
        logits = logits + bias
    logits = logits - logits.amax(dim=-1, keepdim=True)
    out = torch.einsum("... h i j, ... h j d -> ... h i d", logits.softmax(dim=-1), v)
    out = block.to_out(rearrange(out, "... h n d -> ... n (h d)"))
    before, after = sequences.split(" -> ")
    return rearrange(out, f"{after} -> {before}", h=x.shape[3])


def _rotated(x: Tensor, frequencies: Tensor) -> Tensor:
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies
    angles = angles.repeat_interleave(2, dim=-1)
    even, odd = rearrange(x, "... (d two) -> ... d two", two=2).unbind(-1)
    turned = rearrange(torch.stack((-odd, even), dim=-1), "... d two -> ... (d two)")
    return x * angles.cos() + turned * angles.sin()
