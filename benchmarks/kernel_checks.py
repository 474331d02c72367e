"""Whether the operations give float64's numbers on this device: output and every gradient, relative L2.

Odd and minimal sizes, every precision, inputs that are not contiguous, and memory that is NaN before a kernel writes
it. Needs torch, triton, numpy and einops only.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from nnunet_difftumor.kernels import (
    Affine,
    convolve,
    denoise_step,
    depth_attention,
    depth_block,
    group_norm_modulate_silu,
    latent_condition,
    linear_block,
    norm_of_moments,
    norm_silu,
    pack_convolution,
    spatial_block,
    spatial_linear_attention,
    standard_normal,
    vector_quantize,
)
from nnunet_difftumor.kernels.implementation import implementation

# Relative L2 distance to float64, forward and gradients; of quantization the excess of squared distance over |z|^2.
LIMITS = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-2, "float16": 2e-3, "distance": 1e-6, "exact": 0.0}
LAYOUTS = ("channels-last", "contiguous", "sliced", "transposed")

# b, heads, channels of a head, slices, height, width.
ATTENTIONS = (
    (1, 1, 2, 1, 1, 1),
    (2, 1, 16, 5, 3, 2),
    (1, 3, 32, 17, 9, 7),
    (1, 8, 32, 24, 12, 12),
    (1, 2, 48, 33, 9, 1),
)
# b, channels, heads, channels of a head, slices, height, width.
BLOCKS = (
    (1, 1, 1, 2, 1, 1, 1),
    (2, 7, 1, 16, 5, 3, 2),
    (1, 33, 3, 32, 17, 9, 7),
    (1, 192, 8, 32, 24, 3, 3),
    (1, 24, 8, 32, 24, 24, 24),
)
# b, channels, grid, block.
CONDITIONS = (
    (1, 1, (1, 1, 1), (3, 2, 5)),
    (2, 3, (4, 3, 5), (2, 4, 1)),
    (3, 5, (9, 17, 6), (4, 1, 2)),
    (4, 8, (24, 24, 24), (4, 4, 4)),
)
STEPS = ((1, 1, 1, 1, 1), (2, 3, 5, 7, 3), (3, 8, 9, 5, 17), (4, 8, 24, 24, 24))
# Shape, groups, whether modulated, rim.
NORMS = (
    ((1, 1, 1, 1, 3), 1, False, None),
    ((2, 6, 5, 4, 3), 2, True, (2, 1, 0, 1, 1, 0)),
    ((2, 24, 9, 7, 6), 8, False, (1,) * 6),
    ((1, 32, 17, 16, 19), 32, False, (1,) * 6),
    ((3, 48, 3, 9, 9), 8, True, None),
)
# Shape, channels out, kernel, of a second input the channels, and how the weight is packed.
CONVOLUTIONS = (
    ((2, 5, 1, 1, 2), 16, (3, 3, 3), 0, {}),
    ((2, 17, 5, 4, 7), 18, (4, 4, 4), 0, {"stride": (2, 2, 2)}),
    ((1, 20, 7, 9, 11), 17, (3, 3, 3), 0, {}),
    ((1, 32, 49, 48, 47), 32, (3, 3, 3), 0, {}),
    ((1, 64, 48, 48, 48), 64, (3, 3, 3), 0, {}),
    ((1, 64, 24, 24, 24), 32, (4, 4, 4), 0, {"stride": (2, 2, 2), "transposed": True}),
    ((1, 8, 24, 24, 24), 24, (7, 7), 9, {"zero_rim": True}),
    ((2, 96, 24, 6, 6), 48, (1, 1), 96, {"zero_rim": True}),
    ((2, 192, 24, 3, 3), 192, (3, 3), 0, {"zero_rim": True}),
)
# Vectors, codes, channels.
QUANTIZATIONS = ((1, 1, 1), (65, 129, 3), (1000, 4096, 8), (13824, 16384, 8))
# Samples, numbers of each.
NOISES = ((1, 1), (2, 1025), (5, 4099), (2, 8 * 24**3))
SMALL = slice(1, 2)  # which of each the interpreter is given
FIRST = (2, 3)  # of each the numbers of an odd shape and of a real one, which are checked before the others
FIRST_PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Finding:
    """One number of one operation against float64: `quantity` is the output, or the gradient of an input."""

    operation: str
    shape: str
    precision: str
    layout: str
    quantity: str
    error: float
    limit: float

    @property
    def good(self) -> bool:
        return self.error <= self.limit  # False for NaN


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """New tensors are NaN until something writes them."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            if not torch.empty(7).isnan().all():
                raise RuntimeError("this torch does not fill new memory: the check would see nothing")
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def products_in(precision: str) -> Iterator[torch.dtype]:
    """The dtype that stands for a precision; products of float32 are exact, but for tf32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield torch.float32 if precision == "tf32" else getattr(torch, precision)
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Check:
    """Calls of an operation on one input; can be sent to another process.

    Attributes:
        operations: what is checked.
        make: gives the findings.
        first: whether it is one of the few that are checked before the others.
    """

    operations: tuple[str, ...]
    make: Callable[[], Iterator[Finding]]
    first: bool

    def findings(self) -> list[Finding]:
        """What was found. A call that fails is a finding without a number: its operation is wrong."""
        try:
            return list(self.make())
        except Exception as error:  # whatever it is, the other operations are still checked
            said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            return [Finding(name, "", "", "", said, math.nan, 0.0) for name in self.operations]


def checks(*, device: str, small: bool = False) -> list[Check]:
    """Of all operations by their kernels, the first ones first.

    Args:
        device: cuda, or cpu for the interpreter.
        small: one small shape of each.
    """
    found = []

    def add(operations: tuple[str, ...], make: Callable, number: int, *, precision: str, layout: str) -> None:
        first = number in FIRST and precision in FIRST_PRECISIONS and layout == LAYOUTS[0]
        found.append(Check(operations, make, first))

    for precision in ("float32", "tf32", "bfloat16", "float16"):
        for layout in LAYOUTS if precision == "float32" else LAYOUTS[:1]:
            place = {"precision": precision, "layout": layout}
            for number, shape in _chosen(ATTENTIONS, small):
                names = ("depth_attention", "spatial_linear_attention")
                add(names, partial(_attentions, shape, precision, layout, device), number, **place)
            for number, shape in _chosen(BLOCKS, small):
                names = ("depth_block", "linear_block", "spatial_block")
                add(names, partial(_blocks, shape, precision, layout, device), number, **place)
            for number, case in _chosen(CONVOLUTIONS, small):
                names = ("convolve", "norm_silu")
                add(names, partial(_convolution, *case, precision, layout, device), number, **place)
            for number, case in _chosen(NORMS, small):
                if precision != "tf32":  # it has no products
                    make = partial(_norm, *case, precision, layout, device)
                    add(("group_norm_modulate_silu",), make, number, **place)
    for number, shape in _chosen(QUANTIZATIONS, small):
        make = partial(_quantization, *shape, device)
        add(("vector_quantize",), make, number, precision="float32", layout=LAYOUTS[0])
    for number, shape in _chosen(CONDITIONS, small):
        make = partial(_condition, *shape, device)
        add(("latent_condition",), make, number, precision="float32", layout=LAYOUTS[0])
    for number, shape in _chosen(STEPS, small):
        add(("denoise_step",), partial(_step, shape, device), number, precision="float32", layout=LAYOUTS[0])
    for number, shape in _chosen(NOISES, small):
        make = partial(_noise, *shape, device)
        add(("standard_normal",), make, number, precision="float32", layout=LAYOUTS[0])
    return sorted(found, key=lambda check: not check.first)


def _chosen(shapes: tuple, small: bool) -> list[tuple[int, tuple]]:
    return list(enumerate(shapes))[SMALL] if small else list(enumerate(shapes))


def relative(seen: torch.Tensor, wanted: torch.Tensor) -> float:
    """|seen - wanted| / |wanted|; where the truth is zero, |seen|."""
    wanted = wanted.double()
    scale = wanted.norm().item()
    distance = (seen.double() - wanted).norm().item()
    return distance / scale if scale > 1e-12 * wanted.numel() else distance


def _draw(shape: tuple[int, ...], dtype: torch.dtype, device: str, layout: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    b, c, d, h, w = shape
    if layout == "sliced":
        return torch.randn(b, c, d, 2 * h, w, generator=generator).to(device, dtype)[:, :, :, ::2]
    if layout == "transposed":
        return torch.randn(b, c, d, w, h, generator=generator).to(device, dtype).transpose(3, 4)
    drawn = torch.randn(shape, generator=generator).to(device, dtype)
    return drawn.contiguous(memory_format=torch.channels_last_3d) if layout == "channels-last" else drawn


def _parameter(*shape: int, device: str) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])).to(device)


def _attentions(shape: tuple[int, ...], precision: str, layout: str, device: str) -> Iterator[Finding]:
    b, heads, head_dim, d, h, w = shape
    with products_in(precision) as dtype:
        qkv = _draw((b, 3 * heads * head_dim, d, h, w), dtype, device, layout)
        frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2, device=device) / head_dim)
        bias = _parameter(heads, d, d, device=device)
        compare = partial(_compare, shape=shape, precision=precision, layout=layout)
        yield from compare("depth_attention", depth_attention, {"qkv": qkv, "bias": bias}, [frequencies])
        linear = partial(spatial_linear_attention, heads=heads)
        yield from compare("spatial_linear_attention", linear, {"qkv": qkv})


def _blocks(shape: tuple[int, ...], precision: str, layout: str, device: str) -> Iterator[Finding]:
    b, channels, heads, head_dim, d, h, w = shape
    inner, options = heads * head_dim, {"eps": 1e-5}
    with products_in(precision) as dtype:
        x = _draw((b, channels, d, h, w), dtype, device, layout)
        parameter = partial(_parameter, device=device)
        weights = [
            parameter(channels).to(dtype),
            parameter(3 * inner, channels).to(dtype) / channels**0.5,
            parameter(channels, inner).to(dtype) / inner**0.5,
        ]
        frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2, device=device) / head_dim)
        angles = torch.arange(d, device=device)[:, None] * frequencies
        places = [parameter(heads, d, d), angles.cos(), angles.sin()]
        compare = partial(_compare, trained={}, shape=shape, precision=precision, layout=layout)

        def depth(x, gain, to_qkv, to_out, bias, cos, sin):
            return depth_block(x, gain, to_qkv=to_qkv, to_out=to_out, bias=bias, cos=cos, sin=sin, **options)

        yield from compare("depth_block", depth, fixed=[x, *weights, *places])
        options["heads"] = heads

        def linear(x, gain, to_qkv, to_out, out_bias):
            return linear_block(x, gain, to_qkv=to_qkv, to_out=to_out, out_bias=out_bias, **options)

        yield from compare("linear_block", linear, fixed=[x, *weights, parameter(channels).to(dtype)])

        def spatial(x, gain, to_qkv, to_out):
            return spatial_block(x, gain, to_qkv=to_qkv, to_out=to_out, **options)

        yield from compare("spatial_block", spatial, fixed=[x, *weights])


def _norm(
    shape: tuple[int, ...],
    groups: int,
    modulated: bool,
    replicate: tuple[int, ...] | None,
    precision: str,
    layout: str,
    device: str,
) -> Iterator[Finding]:
    inputs = {"x": _draw(shape, getattr(torch, precision), device, layout)}
    inputs |= {name: _parameter(shape[1], device=device) for name in ("weight", "bias")}
    if modulated:
        inputs |= {name: _parameter(*shape[:2], device=device) for name in ("scale", "shift")}

    def operation(x, weight, bias, scale=None, shift=None):
        return group_norm_modulate_silu(
            x, weight, bias=bias, groups=groups, eps=1e-5, scale=scale, shift=shift, replicate=replicate
        )

    yield from _compare("group_norm_modulate_silu", operation, inputs, shape=shape, precision=precision, layout=layout)


def _convolution(
    shape: tuple[int, ...],
    out: int,
    kernel: tuple[int, ...],
    skip: int,
    packing: dict,
    precision: str,
    layout: str,
    device: str,
) -> Iterator[Finding]:
    """With a norm or a second input, a residual, and the norm that follows; and the sum without a convolution."""
    batch, channels, *size = shape
    with products_in(precision) as dtype:
        between = (out, channels + skip) if not packing.get("transposed") else (channels + skip, out)
        share = (channels * math.prod(kernel)) ** -0.5
        weight = (share * _parameter(*between, *kernel, device=device)).to(dtype)
        channels_in = (channels, skip) if skip else (channels,)
        made = pack_convolution(weight, channels=channels_in, **packing).size_out(size)
        inputs = {"x": _draw(shape, dtype, device, layout), "weight": weight, "bias": _parameter(out, device=device)}
        inputs["residual"] = _draw((batch, out, *made), dtype, device, layout)
        if skip:
            inputs["skip"] = _draw((batch, skip, *size), dtype, device, layout)
        else:
            inputs |= {name: _parameter(batch, channels, device=device) for name in ("scale", "shift")}

        def operation(x, weight, bias, residual, *others, moments=False):
            whole = pack_convolution(weight, channels=channels_in, **packing)
            given = {"skip": others[0]} if skip else {"norm": Affine(*others)}
            return convolve(x, whole, bias=bias, residual=residual, moments=moments, **given)

        compare = partial(_compare, shape=shape, precision=precision, layout=layout)
        yield from compare("convolve", operation, inputs)
        weights = {"weight": _parameter(out, device=device), "bias": _parameter(out, device=device)}
        with torch.no_grad(), implementation("triton"), poisoned_memory():
            y, moments = operation(*inputs.values(), moments=True)
            affine = norm_of_moments(moments, **weights, groups=out, eps=1e-5)
        values = y.double().flatten(2)
        factor = weights["weight"] * (values.var(2, correction=0) + 1e-5).rsqrt()
        wanted = {"scale": factor, "shift": weights["bias"] - values.mean(2) * factor}
        for name, seen in zip(("scale", "shift"), affine, strict=True):
            error = relative(seen, wanted[name])
            yield Finding("convolve", str(shape), precision, layout, f"next norm's {name}", error, LIMITS["float32"])
        affine_in = {name: _parameter(batch, channels, device=device) for name in ("scale", "shift")}
        volumes = {name: _draw(shape, dtype, device, layout) for name in ("x", "residual")}
        yield from compare(
            "norm_silu",
            lambda x, residual, scale, shift: norm_silu(x, norm=Affine(scale, shift), residual=residual),
            volumes | affine_in,
        )


def _compare(
    name: str,
    operation: Callable[..., torch.Tensor],
    trained: dict[str, torch.Tensor],
    fixed: list[torch.Tensor] | None = None,
    *,
    shape: tuple[int, ...],
    precision: str,
    layout: str,
) -> Iterator[Finding]:
    def run(cast: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs = [cast(tensor.detach()).requires_grad_() for tensor in trained.values()]
        out = operation(*inputs, *map(cast, fixed or ()))
        if not trained:
            return {"output": out}
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
        # Of the precision that is checked, for float64 too.
        weights = weights.to(next(iter(trained.values())).dtype).to(out)
        gradients = torch.autograd.grad(out, inputs, weights)
        named = zip(trained, gradients, strict=True)
        return {"output": out.detach(), **{f"gradient of {key}": gradient for key, gradient in named}}

    with implementation("triton"), poisoned_memory():
        # As views, so that strides are kept.
        seen = run(lambda tensor: tensor.view_as(tensor))
    with implementation("reference"):
        wanted = run(torch.Tensor.double)
    as_text = " x ".join(map(str, shape))
    for quantity, tensor in seen.items():
        error = relative(tensor, wanted[quantity])
        yield Finding(name, as_text, precision, layout, quantity, error, LIMITS[precision])


def _quantization(count: int, codes: int, channels: int, device: str) -> Iterator[Finding]:
    vectors, codebook = (_parameter(n, channels, device=device) for n in (count, codes))
    vectors = vectors + 0.25 * vectors.flip(0)
    codebook = codebook.roll(1, 0) * 1.1  # not the vectors themselves, where there are as many
    finding = partial(Finding, "vector_quantize", f"{count} x {codes} x {channels}", "float32", "contiguous")
    # Of near ties either code is right: distances are compared, not indices.
    with implementation("reference"):
        nearest = vector_quantize(vectors.double(), codebook.double()).indices

    def distance(indices: torch.Tensor) -> torch.Tensor:
        return (vectors.double() - codebook.double()[indices]).square().sum(1)

    with implementation("triton"):
        with poisoned_memory():  # which also makes sums add up in a fixed order
            sorted_ = vector_quantize(vectors, codebook, statistics=True)
        leaf = vectors.clone().requires_grad_()
        found = vector_quantize(leaf, codebook, statistics=True)
        of_copies = vector_quantize(vectors, codebook.repeat(2, 1)).indices
    excess = (distance(sorted_.indices) - distance(nearest)) / vectors.double().square().sum(1)
    yield finding("distance", excess.max().item(), LIMITS["distance"])
    yield finding("indices, again", (found.indices != sorted_.indices).sum().item(), LIMITS["exact"])
    loss = distance(found.indices).mean() / channels
    yield finding("commitment loss", relative(found.commitment_loss.detach(), loss), LIMITS["float32"])
    counts = torch.bincount(found.indices, minlength=codes)
    sums = torch.zeros(codes, channels, dtype=torch.float64, device=device)
    sums.index_add_(0, found.indices, vectors.double())
    for order, seen in (("sorted", sorted_), ("atomic", found)):
        yield finding(f"counts, {order}", (seen.counts != counts).sum().item(), LIMITS["exact"])
        yield finding(f"sums, {order}", relative(seen.sums, sums), LIMITS["float32"])
    weights = _parameter(count, channels, device=device)
    ((found.embeddings * weights).sum() + found.commitment_loss).backward()
    wanted = weights + 2 * (vectors - codebook[found.indices]) / vectors.numel()
    yield finding("gradient of vectors", relative(leaf.grad, wanted), LIMITS["float32"])
    yield finding("lowest of equal codes", (of_copies != found.indices).sum().item(), LIMITS["exact"])


def _condition(
    batch: int, channels: int, grid: tuple[int, ...], block: tuple[int, ...], device: str
) -> Iterator[Finding]:
    size = [n * f for n, f in zip(grid, block, strict=True)]
    latent, mask = 3 * _parameter(batch, channels, *grid, device=device), _parameter(batch, 1, *size, device=device) > 2
    # One sample's mask vanishes on the grid, another's is nowhere.
    mask[-1] = False
    mask[0, :, :: block[0], :: block[1], :: block[2]] = False
    codes = {name: torch.tensor(value, device=device) for name, value in (("code_min", -1.37), ("code_range", 3.11))}
    with implementation("triton"), poisoned_memory():
        seen = latent_condition(latent, mask, **codes)
    with implementation("reference"):
        wanted = latent_condition(latent, mask, **codes)
    shape = f"{batch} x {channels} x {' x '.join(map(str, grid))}"
    differ = (seen != wanted).sum().item()
    yield Finding("latent_condition", shape, "float32", "contiguous", "other numbers", differ, LIMITS["exact"])


def _step(shape: tuple[int, ...], device: str) -> Iterator[Finding]:
    z, noise = (2 * _parameter(*shape, device=device) for _ in range(2))
    predicted = _parameter(*shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    factors = torch.tensor([1.3, -0.7, 0.6, 0.3, -0.2, 0.1], device=device)
    with implementation("triton"), poisoned_memory():
        seen = denoise_step(z, predicted, noise, coefficients=factors, clip=True)
    with implementation("reference"):
        given = (tensor.double() for tensor in (z, predicted, noise))
        wanted = denoise_step(*given, coefficients=factors.double(), clip=True)
    layout, shape = "contiguous", " x ".join(map(str, shape))
    yield Finding("denoise_step", shape, "float32", layout, "output", relative(seen, wanted), LIMITS["float32"])


def _noise(batch: int, count: int, device: str) -> Iterator[Finding]:
    seeds = torch.arange(-1, batch - 1, device=device) << 40
    finding = partial(Finding, "standard_normal", f"{batch} x {count}", "float32", "contiguous")
    with implementation("triton"), poisoned_memory():
        seen = standard_normal(seeds, count, stream=2**32 - 1)
        alone = standard_normal(seeds[-1:], count, stream=2**32 - 1)
    with implementation("reference"):
        wanted = standard_normal(seeds.cpu(), count, stream=2**32 - 1).to(device)
    yield finding("numbers", relative(seen, wanted), LIMITS["float32"])
    yield finding("the last sample alone", (seen[-1:] != alone).sum().item(), LIMITS["exact"])
