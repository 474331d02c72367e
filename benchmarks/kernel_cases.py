"""The public operations at the networks' shapes, beside plain and good PyTorch, with what each must read and compute.

Needs torch, triton, numpy and einops only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from nnunet_difftumor.kernels import (
    Affine,
    convolve,
    denoise_step,
    depth_attention,
    depth_block,
    group_norm_modulate_silu,
    latent_condition,
    linear_block,
    norm_silu,
    pack_convolution,
    spatial_block,
    spatial_linear_attention,
    standard_normal,
    vector_quantize,
)
from nnunet_difftumor.kernels.cpu.vector_quantize import nearest_code
from nnunet_difftumor.kernels.reference import attention_blocks as plain_blocks
from nnunet_difftumor.kernels.reference import convolve as plain_convolution
from nnunet_difftumor.kernels.reference import counter_noise as plain_noise
from nnunet_difftumor.kernels.reference import depth_attention as plain_depth
from nnunet_difftumor.kernels.reference import group_norm_modulate_silu as plain_norm
from nnunet_difftumor.kernels.reference import latent_condition as plain_condition
from nnunet_difftumor.kernels.reference import norm_silu as plain_activation
from nnunet_difftumor.kernels.reference import spatial_linear_attention as plain_linear

HEADS, HEAD_DIM, CODES, CHANNELS = 8, 32, 16384, 8
LEVELS = ((24, 24), (48, 12), (96, 6), (192, 3))  # channels and edge of the U-Net's levels, for a patch of 96^3
EPS = 1e-5
Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One operation at one shape.

    Attributes:
        operation, shape: names for tables.
        inputs: tensors; the first `trained` have gradients.
        ours: the public operation.
        plain: as the public code does it.
        good: the best that PyTorch has, by name; the fastest counts.
        reference: ours in plain PyTorch: the truth, in float64, and what torch.compile is given.
        fusable: whether torch.compile has something to fuse.
        bytes, flops: that the forward pass must move and compute at least.
        backward_bytes, backward_flops: likewise; 0 where there is no backward pass to compare.
    """

    operation: str
    shape: str
    inputs: Tensors
    ours: Callable[..., torch.Tensor]
    plain: Callable[..., torch.Tensor]
    good: dict[str, Callable[..., torch.Tensor]]
    reference: Callable[..., torch.Tensor]
    bytes: float
    flops: float
    trained: int = 0
    backward_bytes: float = 0.0
    backward_flops: float = 0.0
    fusable: bool = True


def cases(operation: str, *, batch: int, dtype: torch.dtype, device: str, small: bool = False) -> Iterator[Case]:
    """The shapes of a 96^3 patch, or with `small` a tenth of them, for the interpreter."""
    makers = {
        "vector_quantize": _quantize,
        "depth_attention": _depth,
        "spatial_linear_attention": _linear,
        "depth_block": partial(_block, "depth"),
        "linear_block": partial(_block, "linear"),
        "spatial_block": partial(_block, "spatial"),
        "group_norm_modulate_silu": _norm,
        "latent_condition": _condition,
        "denoise_step": _step,
        "convolve": _convolution,
        "norm_silu": _activation,
        "standard_normal": _noise,
    }
    yield from makers[operation](batch, dtype, device, small)


OPERATIONS = (
    "vector_quantize",
    "depth_attention",
    "spatial_linear_attention",
    "depth_block",
    "linear_block",
    "spatial_block",
    "group_norm_modulate_silu",
    "latent_condition",
    "denoise_step",
    "convolve",
    "norm_silu",
    "standard_normal",
)
# Those that compute in float32 only, whatever the networks do.
SINGLE = ("vector_quantize", "latent_condition", "denoise_step", "standard_normal")


def _random(*shape: int, dtype: torch.dtype, device: str, channels_last: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    tensor = torch.randn(shape, generator=generator).to(device, dtype)
    return tensor.contiguous(memory_format=torch.channels_last_3d) if channels_last else tensor


def _quantize(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    count, codes = (40 * batch, 512) if small else (13824 * batch, CODES)
    vectors = _random(count, CHANNELS, dtype=torch.float32, device=device)
    codebook = _random(codes, CHANNELS, dtype=torch.float32, device=device)

    def plain(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        norms = vectors.square().sum(1, keepdim=True) + codebook.t().square().sum(0, keepdim=True)
        indices = (norms - 2 * vectors @ codebook.t()).argmin(1)
        # For the perplexity, which nobody reads.
        one_hot = functional.one_hot(indices, len(codebook)).float()
        one_hot.mean(0)
        return codebook[indices]

    def chunks(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        half_norms = codebook.square().sum(1) / 2
        minus = -codebook.t()
        found = [torch.addmm(half_norms, block, minus).argmin(1) for block in vectors.split(4096)]
        return codebook[torch.cat(found)]

    product = 3 * CHANNELS + 8
    yield Case(
        "vector_quantize",
        f"{count} x {codes}",
        [vectors, codebook],
        lambda vectors, codebook: vector_quantize(vectors, codebook).embeddings,
        plain,
        {"addmm, argmin in chunks": chunks},
        lambda vectors, codebook: codebook[nearest_code(vectors, codebook)],
        bytes=vectors.nbytes * 2 + codebook.nbytes + codes * product * 2,
        flops=2.0 * count * codes * product,
        fusable=False,
    )


def _depth(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    for _, edge in LEVELS[:1] if small else LEVELS:
        slices, edge = (8, 2) if small else (24, edge)
        qkv = _random(batch, 3 * HEADS * HEAD_DIM, slices, edge, edge, dtype=dtype, device=device, channels_last=True)
        bias = _random(HEADS, slices, slices, dtype=torch.float32, device=device)
        frequencies = _frequencies(device)

        def fused(qkv: torch.Tensor, bias: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
            b, _, d, h, w = qkv.shape
            split = qkv.permute(0, 3, 4, 2, 1).reshape(b * h * w, d, 3, HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)
            angles = torch.arange(d, device=qkv.device)[:, None] * frequencies
            cos, sin = angles.cos().to(qkv.dtype), angles.sin().to(qkv.dtype)

            def turned(x: torch.Tensor) -> torch.Tensor:
                even, odd = x[..., ::2], x[..., 1::2]
                return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)

            out = functional.scaled_dot_product_attention(
                turned(split[0]), turned(split[1]), split[2], attn_mask=bias.to(qkv.dtype)
            )
            return out.permute(0, 2, 1, 3).reshape(b, h, w, d, -1).permute(0, 4, 3, 1, 2)

        columns = batch * edge * edge
        product = 4.0 * columns * HEADS * slices * slices * HEAD_DIM
        yield Case(
            "depth_attention",
            f"{columns} columns of {slices}",
            [qkv, bias, frequencies],
            depth_attention,
            plain_depth.depth_attention,
            {"SDPA": fused},
            plain_depth.depth_attention,
            bytes=qkv.nbytes * 4 / 3,
            flops=product,
            trained=2,
            backward_bytes=qkv.nbytes * 7 / 3,
            backward_flops=2.5 * product,
        )


def _linear(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    for _, edge in LEVELS[:1] if small else LEVELS:
        slices, edge = (2, 9) if small else (24, edge)
        qkv = _random(batch, 3 * HEADS * HEAD_DIM, slices, edge, edge, dtype=dtype, device=device, channels_last=True)

        def ours(qkv: torch.Tensor) -> torch.Tensor:
            return spatial_linear_attention(qkv, heads=HEADS)

        plain = partial(plain_linear.spatial_linear_attention, heads=HEADS)
        product = 4.0 * batch * slices * edge * edge * HEADS * HEAD_DIM * HEAD_DIM
        yield Case(
            "spatial_linear_attention",
            f"{batch * slices} slices of {edge}^2",
            [qkv],
            ours,
            plain,
            {},
            plain,
            bytes=qkv.nbytes * 4 / 3,
            flops=product,
            trained=1,
            backward_bytes=qkv.nbytes * 7 / 3,
            backward_flops=2.5 * product,
        )


def attention_block(
    kind: str, channels: int, edge: int, *, batch: int, slices: int, dtype: torch.dtype, device: str
) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor], Tensors]:
    """A block of the U-Net, "depth", "linear" or "spatial": the public function, its reference and their inputs."""
    random = partial(_random, device=device)
    inner, names = HEADS * HEAD_DIM, ["to_qkv", "to_out"]
    x = random(batch, channels, slices, edge, edge, dtype=dtype, channels_last=True)
    weights = [
        random(channels, dtype=dtype),
        random(3 * inner, channels, dtype=dtype) / channels**0.5,
        random(channels, inner, dtype=dtype) / inner**0.5,
    ]
    if kind == "depth":
        angles = torch.arange(slices, device=device)[:, None] * _frequencies(device)
        weights += [random(HEADS, slices, slices, dtype=torch.float32), angles.cos(), angles.sin()]
        names += ["bias", "cos", "sin"]
    if kind == "linear":
        weights.append(random(channels, dtype=dtype))
        names.append("out_bias")
    public = {"depth": depth_block, "linear": linear_block, "spatial": spatial_block}[kind]
    heads = {} if kind == "depth" else {"heads": HEADS}

    def ours(x, gain, *others):
        return public(x, gain, **dict(zip(names, others, strict=True)), **heads, eps=EPS)

    def plain(*inputs):
        return getattr(plain_blocks, f"{kind}_block")(*inputs, *heads.values(), EPS)

    return ours, plain, [x, *weights]


def _frequencies(device: str) -> torch.Tensor:
    return (10000.0 ** -(torch.arange(0, HEAD_DIM, 2, dtype=torch.float32) / HEAD_DIM)).to(device)


def _block(kind: str, batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    levels = LEVELS[-1:] if kind == "spatial" else LEVELS
    for channels, edge in levels[:1] if small else levels:
        slices, edge = (4, 2) if small else (24, edge)
        ours, plain, inputs = attention_block(
            kind, channels, edge, batch=batch, slices=slices, dtype=dtype, device=device
        )
        frequencies = _frequencies(device)

        def apart(x, gain, to_qkv, to_out, *others, frequencies=frequencies):
            """Attention by its kernel, between PyTorch's operations."""
            normed = functional.layer_norm(x.movedim(1, -1), gain.shape, gain, None, EPS)
            qkv = functional.linear(normed, to_qkv).movedim(-1, 1)
            if kind == "depth":
                attended = depth_attention(qkv, others[0], frequencies)
            elif kind == "linear":
                attended = spatial_linear_attention(qkv, heads=HEADS)
            else:
                attended = plain_blocks.attend_within_slices(qkv, heads=HEADS)
            bias = others[0] if kind == "linear" else None
            return x + functional.linear(attended.movedim(1, -1), to_out, bias).movedim(-1, 1)

        positions, inner = batch * slices * edge * edge, HEADS * HEAD_DIM
        among = {"depth": slices, "linear": HEAD_DIM, "spatial": edge * edge}[kind]
        yield Case(
            f"{kind}_block",
            f"{batch} x {channels} x {slices} x {edge}^2",
            inputs,
            ours,
            plain,
            {"operations of their own": apart},
            plain,
            bytes=2.0 * inputs[0].nbytes + sum(tensor.nbytes for tensor in inputs[1:]),
            flops=positions * inner * (8.0 * channels + 4.0 * among),
        )


def _norm(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    unet = [(channels, (24, edge, edge), 8, True, None) for channels, edge in LEVELS]
    autoencoder = [
        (channels, (edge,) * 3, 32, False, (1,) * 6) for channels, edge in ((32, 48), (64, 24), (64, 48), (32, 96))
    ]
    if small:
        unet, autoencoder = [(24, (4, 6, 6), 8, True, None)], [(32, (5, 6, 7), 32, False, (1,) * 6)]
    for channels, volume, groups, modulated, replicate in (*unet, *autoencoder):
        x = _random(batch, channels, *volume, dtype=dtype, device=device, channels_last=True)
        parameters = [_random(channels, dtype=torch.float32, device=device) for _ in range(2)]
        if modulated:
            parameters += [_random(batch, channels, dtype=torch.float32, device=device) for _ in range(2)]

        def ours(x, weight, bias, scale=None, shift=None, *, groups=groups, replicate=replicate):
            return group_norm_modulate_silu(
                x, weight, bias=bias, groups=groups, eps=1e-5, scale=scale, shift=shift, replicate=replicate
            )

        def plain(x, weight, bias, scale=None, shift=None, *, groups=groups, replicate=replicate):
            y = functional.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), 1e-5)
            if scale is not None:
                y = y * (scale.to(x.dtype)[:, :, None, None, None] + 1) + shift.to(x.dtype)[:, :, None, None, None]
            y = y * torch.sigmoid(y)
            return y if replicate is None else functional.pad(y, replicate, mode="replicate")

        def fused(x, weight, bias, scale=None, shift=None, *, groups=groups, replicate=replicate):
            return plain_norm.group_norm_modulate_silu(
                x, weight, bias=bias, groups=groups, eps=1e-5, scale=scale, shift=shift, replicate=replicate
            )

        out = x.numel() if replicate is None else batch * channels * (volume[0] + 2) * (volume[1] + 2) * (volume[2] + 2)
        item = x.element_size()
        yield Case(
            "group_norm_modulate_silu",
            f"{batch} x {channels} x {' x '.join(map(str, volume))}{' and rim' if replicate else ''}",
            [x, *parameters],
            ours,
            plain,
            {},
            fused,
            # The volume is read twice: first for the moments.
            bytes=2.0 * x.nbytes + out * item,
            flops=0.0,
            trained=1 + len(parameters),
            backward_bytes=2.0 * (x.nbytes + out * item) + x.nbytes,
        )


def _condition(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    edge = 6 if small else 24
    latent = _random(batch, CHANNELS, edge, edge, edge, dtype=torch.float32, device=device)
    mask = _random(batch, 1, 4 * edge, 4 * edge, 4 * edge, dtype=torch.float32, device=device) > 2
    codes = [torch.tensor(value, device=device) for value in (-1.37, 3.11)]

    def plain(latent, mask, code_min, code_range):
        # The check gives it float64.
        return plain_condition.latent_condition(latent, mask.bool(), code_min, code_range)

    yield Case(
        "latent_condition",
        f"{batch} x {CHANNELS} x {edge}^3",
        [latent, mask, *codes],
        lambda latent, mask, low, extent: latent_condition(latent, mask, code_min=low, code_range=extent),
        plain,
        {},
        plain,
        bytes=latent.nbytes * (2 + 1 / CHANNELS) + mask.nbytes / 64,
        flops=0.0,
    )


def _step(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    """Of DDPM, from a captured graph's point of view: its factors are tensors on the device."""
    size = (batch, CHANNELS, *(3 * (6 if small else 24,)))
    volumes = [
        _random(*size, dtype=torch.float32, device=device, channels_last=True),
        _random(*size, dtype=torch.float32, device=device, channels_last=True),
        _random(*size, dtype=torch.float32, device=device),
    ]
    factors = torch.tensor([1.3, -0.7, 0.6, 0.3, 0.0, 0.1], device=device)

    def plain(z, predicted, noise, factors):
        clean = (factors[0] * z + factors[1] * predicted).clamp(-1, 1)
        return factors[2] * clean + factors[3] * z + factors[5] * noise

    yield Case(
        "denoise_step",
        " x ".join(map(str, size)),
        [*volumes, factors],
        lambda z, predicted, noise, factors: denoise_step(z, predicted, noise, coefficients=factors, clip=True),
        plain,
        {},
        plain,
        bytes=4.0 * volumes[0].nbytes,
        flops=0.0,
    )


# Channels, size, channels out, kernel, and how the weight is packed: the autoencoder at 96^3, the levels of the U-Net.
CONVOLUTIONS = (
    (16, (96,) * 3, 32, (4,) * 3, {"stride": (2,) * 3}),
    (32, (48,) * 3, 32, (3,) * 3, {}),
    (64, (24,) * 3, 64, (3,) * 3, {}),
    (64, (24,) * 3, 64, (4,) * 3, {"stride": (2,) * 3, "transposed": True}),
    (64, (48,) * 3, 64, (3,) * 3, {}),
    (64, (48,) * 3, 32, (4,) * 3, {"stride": (2,) * 3, "transposed": True}),
    (32, (96,) * 3, 32, (3,) * 3, {}),
    *((channels, (24, edge, edge), channels, (3, 3), {"zero_rim": True}) for channels, edge in LEVELS),
)


def _convolution(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    """Inference: of silu(norm(x)), plus bias and residual, with the moments of the sum; without a norm, of x."""
    for channels, size, out, kernel, packing in CONVOLUTIONS[1:2] if small else CONVOLUTIONS:
        size = (3, 4, 5) if small else size
        between = (channels, out) if packing.get("transposed") else (out, channels)
        whole = pack_convolution(_random(*between, *kernel, dtype=dtype, device=device), **packing)
        x = _random(batch, channels, *size, dtype=dtype, device=device, channels_last=True)
        residual = _random(batch, out, *whole.size_out(size), dtype=dtype, device=device, channels_last=True)
        weight = whole.weight.contiguous(memory_format=torch.channels_last_3d)
        bias = _random(out, dtype=torch.float32, device=device)
        affine = [_random(batch, channels, dtype=torch.float32, device=device) for _ in range(2)]
        taps = weight[0, 0].numel() / (whole.stride[0] * whole.stride[1] * whole.stride[2] if whole.transposed else 1)
        shape = f"{batch} x {channels} x {' x '.join(map(str, size))} to {out} by {' x '.join(map(str, kernel))}"

        def ours(x, weight, packed, bias, residual, *affine, whole=whole):
            with torch.no_grad():
                y, _ = convolve(
                    *(x, whole._replace(weight=weight, packed=packed)),
                    bias=bias,
                    norm=Affine(*affine) if affine else None,
                    residual=residual,
                    moments=True,
                )
            return y

        def plain(x, weight, packed, bias, residual, *affine, whole=whole):
            if affine:
                scale, shift = (part.to(x.dtype)[:, :, None, None, None] for part in affine)
                x = functional.silu(x * scale + shift)
            if any(whole.padding):
                x = functional.pad(x, whole.padding, mode="constant" if whole.zero_rim else "replicate")
            bias = bias.to(x.dtype)
            if not whole.transposed:
                return functional.conv3d(x, weight, bias, stride=whole.stride) + residual
            cut = [k - 1 for k in weight.shape[2:]]
            return functional.conv_transpose3d(x, weight, bias, stride=whole.stride, padding=cut) + residual

        def fused(x, weight, packed, bias, residual, *affine, whole=whole):
            return plain_convolution.convolve(
                *(x, whole._replace(weight=weight)),
                bias=bias,
                skip=None,
                norm=Affine(*affine) if affine else None,
                residual=residual,
                residual_norm=None,
            ).to(x.dtype)

        for with_norm in (True, False):
            yield Case(
                "convolve",
                f"{shape}{' transposed' if whole.transposed else ''}{', norm' if with_norm else ''}",
                [x, weight, whole.packed, bias, residual, *(affine if with_norm else ())],
                ours,
                plain,
                {},
                fused,
                bytes=x.nbytes + weight.nbytes + 2.0 * residual.nbytes,
                flops=2.0 * residual.numel() * channels * taps,
            )


def _activation(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    """With a residual, as the U-Net has it; without, for a convolution that then takes no norm."""
    volumes = [(channels, (24, edge, edge), True) for channels, edge in LEVELS]
    volumes += [(64, (48,) * 3, False), (32, (96,) * 3, False)]
    for channels, size, summed in [(24, (3, 4, 5), True)] if small else volumes:
        x, residual = (
            _random(batch, channels, *size, dtype=dtype, device=device, channels_last=True) for _ in range(2)
        )
        affine = [_random(batch, channels, dtype=torch.float32, device=device) for _ in range(2)]

        def ours(x, scale, shift, residual=None):
            return norm_silu(x, norm=Affine(scale, shift), residual=residual)

        def plain(x, scale, shift, residual=None):
            y = x * scale.to(x.dtype)[:, :, None, None, None] + shift.to(x.dtype)[:, :, None, None, None]
            y = functional.silu(y)
            return y if residual is None else y + residual

        def fused(x, scale, shift, residual=None):
            return plain_activation.norm_silu(x, norm=Affine(scale, shift), residual=residual)

        yield Case(
            "norm_silu",
            f"{batch} x {channels} x {' x '.join(map(str, size))}{' and residual' if summed else ''}",
            [x, *affine, *([residual] if summed else [])],
            ours,
            plain,
            {},
            fused,
            bytes=(3.0 if summed else 2.0) * x.nbytes,
            flops=0.0,
        )


def _noise(batch: int, dtype: torch.dtype, device: str, small: bool) -> Iterator[Case]:
    count = CHANNELS * (9 if small else 24) ** 3
    yield Case(
        "standard_normal",
        f"{batch} x {count}",
        [torch.arange(batch, device=device)],
        partial(standard_normal, count=count, stream=1),
        # Of one generator: there a sample's numbers depend on its place in the batch.
        lambda seeds: torch.randn(len(seeds), count, device=seeds.device),
        {},
        # The check gives it float64.
        lambda seeds: plain_noise.standard_normal(seeds.long(), count, stream=1),
        bytes=4.0 * batch * count,
        flops=0.0,
    )
