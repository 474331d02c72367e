"""The autoencoder on a CPU, without gradients: every convolution slab by slab along the first axis.

What is gained over one layer after the other is memory traffic. Norm, SiLU and the repeated rim are written straight
into the padded input of a convolution, which stays in the cache, and the moments that the next norm needs are taken
from its output while that is still there. Slabs are small enough for the allocator to reuse their memory: larger
tensors get fresh pages from the operating system every time, which takes longer than an elementwise operation on them.

Volumes are (d, h, w, c), channels last, which the convolutions of oneDNN take without reordering. They and the moments
are float32 also where weights are not; with weights in bfloat16 the input of a convolution is rounded, no more.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from nnunet_difftumor.kernels.moments import Affine, Moments

# Padded input of a convolution: about what fits into a CPU's last cache, and well below the 32 MiB up to which malloc
# keeps memory.
_SLAB_BYTES = 8 * 2**20
# With fewer rows torch may choose its own convolution instead of that of oneDNN, which takes many times as long.
_LEAST_ROWS = 8


def encode(model: nn.Module, volume: torch.Tensor) -> torch.Tensor:
    """See `Autoencoder.encode`."""
    return _of_each(volume, lambda x: _encode(model, x))


def decode(model: nn.Module, embeddings: torch.Tensor) -> torch.Tensor:
    """See `Autoencoder.decode_embeddings`."""
    return _of_each(embeddings, lambda x: _decode(model, x))


def _of_each(batch: torch.Tensor, convert: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    wide = torch.promote_types(batch.dtype, torch.float32)
    made = [convert(sample.movedim(0, -1).to(wide)).movedim(-1, 0) for sample in batch]
    return torch.stack(made).to(batch.dtype)


def _encode(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x, _ = convolve(model.encoder.conv_first, x)
    norm = None
    for stage in model.encoder.stages:
        x, norm = convolve(stage["down"], x, then=stage["res"].norm1)
        then = model.encoder.final_norm if stage is model.encoder.stages[-1] else None
        x, norm = _residual(stage["res"], x, norm, inner=torch.empty_like(x), then=then)
    return convolve(model.to_latent, x, norm)[0]


def _decode(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x, norm = convolve(model.from_latent, x, then=model.decoder.first_norm)
    for stage in model.decoder.stages:
        x, norm = convolve(stage["up"], x, norm, then=stage["res1"].norm1)
        inner = torch.empty_like(x)
        x, norm = _residual(stage["res1"], x, norm, inner=inner, then=stage["res2"].norm1)
        x, norm = _residual(stage["res2"], x, norm, inner=inner)
    return convolve(model.decoder.conv_last, x)[0]


def _residual(
    block: nn.Module, x: torch.Tensor, norm: Affine, *, inner: torch.Tensor, then: nn.GroupNorm | None = None
) -> tuple[torch.Tensor, Affine | None]:
    """A residual block; x and `inner`, for what is between its convolutions, are overwritten."""
    inner, inner_norm = convolve(block.conv1, x, norm, into=inner, then=block.norm2)
    return convolve(block.conv2, inner, inner_norm, onto=x, then=then)


def convolve(
    conv: nn.Module,
    x: torch.Tensor,
    norm: Affine | None = None,
    *,
    onto: torch.Tensor | None = None,
    into: torch.Tensor | None = None,
    then: nn.GroupNorm | None = None,
) -> tuple[torch.Tensor, Affine | None]:
    """A size-keeping convolution of silu(norm(x)), or of x.

    Args:
        conv: SamePadConv3d or SamePadConvTranspose3d.
        x: float32 (d, h, w, c).
        norm: of x.
        onto: float32 of the output's shape, to which the output is added.
        into: likewise, which is overwritten: memory to use again.
        then: a norm of the output.

    Returns:
        The output (d', h', w', c'), which is `onto` or `into` if given; and what `then` does to it.
    """
    transposed = isinstance(conv, nn.ConvTranspose3d)
    size = [n * s if transposed else n // s for n, s in zip(x.shape[:3], conv.stride, strict=True)]
    if into is None:
        into = x.new_empty(*size, conv.out_channels) if onto is None else onto
    by_taps = conv.out_channels < 8 and conv.kernel_size[0] > 1 and max(conv.stride) == 1 and not transposed
    apply = _by_taps(conv) if by_taps else _by_onednn(conv)
    moments = None if then is None else Moments(conv.out_channels)
    for rows, padded in _slabs(conv, x, norm, into.shape):
        made = apply(padded.movedim(-1, 0)[None])[0].movedim(0, -1)
        target = into[rows]
        target.copy_(made) if onto is None else target.add_(made)
        if moments is not None:
            moments.add(target)
    if then is None:
        return into, None
    return into, moments.affine(then.weight, then.bias, groups=then.num_groups, eps=then.eps)


def _slabs(
    conv: nn.Module, x: torch.Tensor, norm: Affine | None, out_shape: torch.Size
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows of the output, and the padded input (d, h, w, c) that gives them. It is overwritten by the next."""
    transposed = isinstance(conv, nn.ConvTranspose3d)
    stride, kernel = conv.stride[0], conv.kernel_size[0]
    w_before, w_after, h_before, h_after, before, _ = conv.replication
    d, h, w, c = x.shape
    depth, out_plane = out_shape[0], out_shape[1:].numel()
    plane = (h + h_before + h_after, w + w_before + w_after, c)

    def rows_in(rows: int) -> int:
        return rows // stride + kernel - stride if transposed else (rows - 1) * stride + kernel

    in_plane = plane[0] * plane[1] * c * (1 / stride if transposed else stride)
    count = max(1, round(depth / max(_LEAST_ROWS, _SLAB_BYTES / (4 * max(in_plane, out_plane)))))
    step = -(-depth // count)
    step += step % stride
    buffer = torch.empty(rows_in(step), *plane, dtype=conv.weight.dtype)
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        first = (start // stride if transposed else start * stride) - before
        used = buffer[: rows_in(stop - start)]
        lower, upper = max(first, 0), min(first + len(used), d)
        filled = used[lower - first : upper - first]
        _normalize(x[lower:upper], norm, out=filled[:, h_before : h_before + h, w_before : w_before + w])
        _repeat_rim(filled, 2, w_before, w_after)
        _repeat_rim(filled, 1, h_before, h_after)
        _repeat_rim(used, 0, lower - first, len(used) - (upper - first))
        yield slice(start, stop), used


def _normalize(x: torch.Tensor, norm: Affine | None, *, out: torch.Tensor) -> None:
    """silu(norm(x)), or x."""
    if norm is None:
        out.copy_(x)
    elif out.dtype == x.dtype:
        functional.silu(torch.addcmul(norm.shift, x, norm.scale, out=out), inplace=True)
    else:
        out.copy_(functional.silu(torch.addcmul(norm.shift, x, norm.scale), inplace=True))


def _repeat_rim(x: torch.Tensor, axis: int, before: int, after: int) -> None:
    n = x.shape[axis]
    if before:
        x.narrow(axis, 0, before).copy_(x.narrow(axis, before, 1))
    if after:
        x.narrow(axis, n - after, after).copy_(x.narrow(axis, n - after - 1, 1))


def _by_onednn(conv: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    # With other weights torch may reorder every input.
    weight = conv.weight.contiguous(memory_format=torch.channels_last_3d)
    if isinstance(conv, nn.ConvTranspose3d):
        return lambda x: functional.conv_transpose3d(x, weight, conv.bias, stride=conv.stride, padding=conv.padding)
    return lambda x: functional.conv3d(x, weight, conv.bias, stride=conv.stride)


def _by_taps(conv: nn.Conv3d) -> Callable[[torch.Tensor], torch.Tensor]:
    """The convolution to a few channels as one matrix product for all taps of the kernel, which are shifted and added.

    Convolutions that make one channel use an eighth of a CPU's vector units.
    """
    out, c, *kernel = conv.weight.shape
    weight = conv.weight.permute(2, 3, 4, 0, 1).reshape(-1, c)
    offsets = [(z, y, x) for z in range(kernel[0]) for y in range(kernel[1]) for x in range(kernel[2])]

    def apply(x: torch.Tensor) -> torch.Tensor:
        volume = x[0].movedim(0, -1)
        size = [n - k + 1 for n, k in zip(volume.shape[:3], kernel, strict=True)]
        taps = (weight @ volume.reshape(-1, c).T).view(len(offsets), out, *volume.shape[:3])
        made = conv.bias.to(torch.promote_types(conv.bias.dtype, torch.float32)).view(out, 1, 1, 1).repeat(1, *size)
        for tap, start in zip(taps, offsets, strict=True):
            window = tuple(slice(at, at + n) for at, n in zip(start, size, strict=True))
            made += tap[(slice(None), *window)]
        return made[None]

    return apply
