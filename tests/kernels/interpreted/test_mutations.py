"""Wrong kernels make tests fail: each fault of this list is put into a kernel, and a test that is named must notice.

The faults are those that one makes: a wrong scale, a missing mask, an index off by one, a stride of another axis.
"""

import importlib.util
import sys
from dataclasses import dataclass

import pytest
import test_attention_blocks_kernel as blocks
import test_convolve_kernel as conv
import test_counter_noise_kernel as noise
import test_denoise_step_kernel as denoising
import test_depth_attention_kernel as depth
import test_group_norm_modulate_silu_kernel as norm
import test_latent_condition_kernel as condition
import test_spatial_linear_attention_kernel as linear
import test_vector_quantize_kernel as quantize
import torch
from test_convolve_kernel import deep  # noqa: F401, a fixture
from test_vector_quantize_kernel import in_one_program  # noqa: F401, a fixture
from triton.runtime.errors import InterpreterError

from nnunet_difftumor.kernels import triton as package
from nnunet_difftumor.kernels.triton import (
    attention_blocks,
    convolve,
    counter_noise,
    denoise_step,
    depth_attention,
    group_norm_modulate_silu,
    latent_condition,
    norm_of_moments,
    norm_silu,
    spatial_linear_attention,
    vector_quantize,
)


@dataclass(frozen=True)
class Mutation:
    """A fault: `old`, which is in the module's source once, becomes `new`; `test` called with `arguments` must fail.

    `within` names the function that has it once, if the module has it more often, and `fixture` what the test needs.
    """

    module: object
    old: str
    new: str
    test: object
    arguments: tuple = ()
    within: str = ""
    fixture: str = ""

    def __str__(self) -> str:
        where = " ".join(filter(None, (self.module.__name__.rpartition(".")[2], self.within)))
        return f"{where}: {self.old.strip()} -> {self.new.strip()}"

    def applied(self, source: str) -> str:
        """The module's source with this fault, and no other."""
        start, end, next_function = 0, len(source), "\n@triton.jit"
        if self.within:
            start = source.index(f"\ndef {self.within}(")
            end = (source + next_function).index(next_function, start)
        assert source.count(self.old, start, end) == 1, "not one place of the kernel; change the mutation too"
        return source[:start] + source[start:end].replace(self.old, self.new) + source[end:]


SMALL = depth.SHAPES[1]
BOTH_WAYS = ("_forward", "_backward")
MUTATIONS = [
    Mutation(depth_attention, '"scale": head_dim**-0.5', '"scale": head_dim**-0.25', depth.test_any_shape, (SMALL,)),
    Mutation(
        depth_attention,
        'float("-inf"))\n    return weights',
        "0.0)\n    return weights",
        depth.test_any_shape,
        (SMALL,),
    ),
    Mutation(
        depth_attention,
        "* SLICES + slices[None, :], mask=pairs",
        "* SLICES + slices[None, :] + 1, mask=pairs",
        depth.test_any_shape,
        (SMALL,),
    ),
    Mutation(
        depth_attention,
        "return even * cos - odd * sin, odd * cos + even * sin",
        "return even, odd",
        depth.test_any_shape,
        (SMALL,),
    ),
    Mutation(
        depth_attention,
        "of_q = tl.join(even * cosine + odd * sine",
        "of_q = tl.join(even * cosine - odd * sine",
        depth.test_any_shape,
        (SMALL,),
    ),
    *(
        Mutation(
            depth_attention,
            "row = column // width % height",
            "row = column % width",
            depth.test_any_shape,
            (SMALL,),
            within=name,
        )
        for name in BOTH_WAYS
    ),
    *(
        Mutation(
            depth_attention,
            "inside = (slices < SLICES) & (column < columns)",
            "inside = slices < SLICES",
            depth.test_any_shape,
            (SMALL,),
            within=name,
        )
        for name in BOTH_WAYS
    ),
    Mutation(depth_attention, "of_bias += of_logits", "of_bias = of_logits", depth.test_any_shape, (SMALL,)),
    Mutation(
        depth_attention,
        "column % width * gradient_column",
        "column % width * gradient_row",
        depth.test_any_shape,
        (SMALL,),
    ),
    Mutation(
        spatial_linear_attention,
        "(context * (scale / total)[:, None])",
        "(context / total[:, None])",
        linear.test_any_shape,
        (linear.SHAPES[1],),
    ),
    *(
        Mutation(
            spatial_linear_attention,
            'tl.where((here < count)[:, None], k.to(tl.float32) * _LOG2E, float("-inf"))',
            "k.to(tl.float32) * _LOG2E",
            linear.test_any_shape,
            (linear.SHAPES[4],),
            within=name,
        )
        for name in BOTH_WAYS
    ),
    *(
        Mutation(
            spatial_linear_attention,
            "context = context * shrink[:, None]",
            "context = context",
            linear.test_any_shape,
            (linear.SHAPES[1],),
            within=name,
        )
        for name in BOTH_WAYS
    ),
    *(
        Mutation(
            spatial_linear_attention,
            "total = total * shrink",
            "total = total",
            linear.test_any_shape,
            (linear.SHAPES[1],),
            within=name,
        )
        for name in BOTH_WAYS
    ),
    Mutation(spatial_linear_attention, "(of_k - mean[None, :])", "of_k", linear.test_any_shape, (linear.SHAPES[1],)),
    *(
        Mutation(
            spatial_linear_attention,
            "position // width * stride_row + position % width * stride_column",
            "position // width * stride_column + position % width * stride_row",
            linear.test_any_shape,
            (linear.SHAPES[4],),
            within=name,
        )
        for name in ("_tile", "_put")
    ),
    Mutation(
        spatial_linear_attention,
        "mask=(position < count)[:, None] & (channel < HEAD_DIM)[None, :],\n    )",
        "mask=(channel < HEAD_DIM)[None, :],\n    )",
        linear.test_any_shape,
        (linear.SHAPES[4],),
    ),
    Mutation(
        group_norm_modulate_silu,
        "tl.store(reciprocals + out, 1.0 / tl.sqrt(variance + eps))",
        "tl.store(reciprocals + out, 1.0 / tl.sqrt(variance))",
        norm.test_the_variance_gets_its_addend,
    ),
    Mutation(
        group_norm_modulate_silu,
        "difference * difference * (count * share)",
        "0.0",
        norm.test_programs_that_join_several_tiles,
        (pytest.MonkeyPatch(), True),
    ),
    Mutation(
        group_norm_modulate_silu,
        "factor = 1.0 + tl.load(parameters.scale",
        "factor = tl.load(parameters.scale",
        norm.test_any_shape,
        norm.CASES[1],
    ),
    Mutation(group_norm_modulate_silu, "at % y.width - before[2]", "at % y.width", norm.test_any_shape, norm.CASES[2]),
    Mutation(
        group_norm_modulate_silu,
        "(dz > 0) & (slice_ == x.depth - 1)",
        "(dz > 0) & (slice_ == x.depth - 2)",
        norm.test_any_shape,
        norm.CASES[2],
    ),
    Mutation(group_norm_modulate_silu, "- normalized * mean_product[None, :]", "", norm.test_any_shape, norm.CASES[1]),
    Mutation(
        group_norm_modulate_silu,
        "mask=inside)\n\n\n@triton.jit\ndef _gathered",
        "mask=(channel < CHANNELS)[None, :])\n\n\n@triton.jit\ndef _gathered",
        norm.test_any_shape,
        norm.CASES[1],
    ),
    Mutation(
        vector_quantize,
        "best_tile = tl.where(nearer, tile, best_tile)",
        "best_tile = tl.where(nearer, tile - 1, best_tile)",
        quantize.test_the_nearest_code_is_found,
        (130, 300, 8),
    ),
    Mutation(
        vector_quantize,
        "nearer = smallest < best",
        "nearer = smallest <= best",
        quantize.test_the_lowest_of_equal_codes_is_taken_also_across_tiles_and_programs,
        (2,),
        fixture="in_one_program",
    ),
    Mutation(
        vector_quantize,
        "minus_double = -2 * scaled",
        "minus_double = -scaled",
        quantize.test_the_nearest_code_is_found,
        (130, 300, 8),
        fixture="in_one_program",
    ),
    Mutation(
        vector_quantize,
        "real = candidates < code_count",
        "real = candidates >= 0",
        quantize.test_the_nearest_code_is_found,
        (2, 129, 8),
    ),
    Mutation(
        vector_quantize,
        "    inside = rows < count\n    channels",
        "    inside = rows <= count\n    channels",
        quantize.test_the_nearest_code_is_found,
        (63, 64, 8),
    ),
    Mutation(
        vector_quantize,
        'values, mask=present, sem="relaxed")',
        "values, mask=inside[:, None])",
        quantize.test_the_nearest_code_is_found,
        (200, 16, 3),
    ),
    Mutation(
        counter_noise, "mask=element < count", "mask=element <= count", noise.test_any_count_and_stream, (2, 5, 1)
    ),
    Mutation(counter_noise, "seeds + sample * stride", "seeds + sample", noise.test_any_strides_of_the_seeds),
    Mutation(
        counter_noise, "block, 0, stream.to(tl.uint32), 0", "block, 0, 0, 0", noise.test_any_count_and_stream, (2, 5, 1)
    ),
    Mutation(
        counter_noise,
        "tl.join(normal0, normal2), tl.join(normal1, normal3)",
        "tl.join(normal0, normal1), tl.join(normal2, normal3)",
        noise.test_any_count_and_stream,
        (2, 5, 1),
    ),
    Mutation(
        counter_noise,
        "first.to(tl.float32) + 1.0",
        "first.to(tl.float32)",
        noise.test_extreme_words_and_the_borders_of_the_eighths_of_a_turn,
    ),
    Mutation(
        counter_noise,
        "quarter >= 2, -y",
        "quarter > 2, -y",
        noise.test_extreme_words_and_the_borders_of_the_eighths_of_a_turn,
    ),
    *(
        Mutation(attention_blocks, old, new, blocks.test_any_shape, (kind, blocks.REAL[kind]), within=within)
        for kind, within, old, new in (
            ("depth", "_moments", "mean = total / CHANNELS", "mean = total / CHUNK"),
            ("depth", "_moments", "tl.where(present, values - mean[:, None], 0.0)", "values - mean[:, None]"),
            ("depth", "_moments", "squares / CHANNELS + eps", "squares / (CHANNELS - 1) + eps"),
            ("depth", "_normed", "* factor[None, :]", ""),
            ("depth", "_rows_of", "row[None, :] * CHANNELS", "row[None, :] * CHUNK"),
            ("depth", "_attend", "even = head * HEAD_DIM + 2 * half", "even = head * HEAD_DIM + half"),
            ("depth", "_attend", "to_next + even + 1, of_pair", "to_next + even, of_pair"),
            ("depth", "_attend", "q_odd * cosine + q_even * sine", "q_odd * cosine - q_even * sine"),
            ("depth", "_attend", "mask=pairs, other=0.0) * _LOG2E", "mask=pairs, other=0.0)"),
            ("depth", "_attend", 'tl.where(inside[None, :], logits, float("-inf"))', "logits"),
            ("depth", "_attend", "mask=inside[:, None] & of_head", "mask=(token >= 0)[:, None] & of_head"),
            ("depth", "_columns", "row, column, slice_, 0", "column, row, slice_, 0"),
            ("spatial", "_attend", "in_log2 = scale * _LOG2E", "in_log2 = _LOG2E"),
            ("spatial", "_attend", "% token_width * out.token_inner", "% token_width * x.token_inner"),
            ("linear", "_attend_linearly", 'k = tl.where(inside[:, None], k * _LOG2E, float("-inf"))', "k *= _LOG2E"),
            ("linear", "_attend_linearly", "context = context * shrink[:, None]", "context = context"),
            ("linear", "_attend_linearly", "total = total * shrink", "total = total"),
            ("linear", "_attend_linearly", "2 * to_next + of_q", "to_next + of_q"),
            ("linear", "_project_and_add", "inside = position < positions", "inside = position >= 0"),
            ("linear", "_project_and_add", "if out_bias is not None:", "if INNER == 0:"),
            ("linear", "_project_and_add", "total += before.to(tl.float32)", ""),
        )
    ),
    Mutation(
        attention_blocks,
        "real = channel < CHANNELS",
        "real = channel >= 0",
        blocks.test_any_shape,
        ("spatial", blocks.SHAPES["spatial"][6]),
        within="_project_and_add",
    ),
    Mutation(
        attention_blocks,
        "slice_, 0, row, column",
        "slice_, 0, column, row",
        blocks.test_any_shape,
        ("spatial", blocks.SHAPES["spatial"][5]),
    ),
    Mutation(
        attention_blocks,
        "sample * in_batch + at",
        "at",
        blocks.test_any_shape,
        ("linear", blocks.SHAPES["linear"][2]),
    ),
    Mutation(
        vector_quantize,
        "tl.load(indices + split * count + rows",
        "tl.load(indices + rows",
        quantize.test_the_nearest_code_is_found,
        (130, 300, 8),
    ),
    Mutation(
        vector_quantize,
        "nearer = distance < nearest",
        "nearer = distance <= nearest",
        quantize.test_the_lowest_of_equal_codes_is_taken_also_across_tiles_and_programs,
        (2,),
    ),
    Mutation(
        vector_quantize,
        "nearest / CHANNELS, mask",
        "nearest, mask",
        quantize.test_the_nearest_code_is_found,
        (63, 64, 8),
    ),
    *(
        Mutation(latent_condition, old, new, condition.test_any_shape_and_share_of_the_mask, arguments)
        for old, new, arguments in (
            ("row * block_row * mask_row\n    first +=", "row * mask_row\n    first +=", (condition.SHAPES[3], 0.01)),
            ("tl.div_rn(2.0 * (value - least), extent)", "(value - least) / extent", (condition.SHAPES[2], 0.5)),
            ("tl.where(of_mask > 0, 1.0, -1.0)", "tl.where(of_mask > 0, 1.0, 0.0)", (condition.SHAPES[2], 0.5)),
        )
    ),
    Mutation(
        latent_condition,
        "voxel < voxels, other=0)\n    tl.store(notes",
        "voxel < voxels)\n    tl.store(notes",
        condition.test_a_mask_that_vanishes_in_one_sample_only,
    ),
    Mutation(
        latent_condition,
        "tl.where(kept == 0, block_row, 1)",
        "1",
        condition.test_a_mask_that_vanishes_in_one_sample_only,
    ),
    Mutation(
        latent_condition,
        "start + tl.arange(0, NOTES)",
        "tl.arange(0, NOTES)",
        condition.test_the_last_of_many_tiles_keeps_a_mask,
    ),
    Mutation(convolve, "_within(at_x, x.width)", "at_x", conv.test_any_shape, conv.CASES[1]),
    Mutation(convolve, "from_x + tap % tw", "from_x + tap % tw - 1", conv.test_any_shape, conv.CASES[1]),
    Mutation(convolve, "q_z * sd - bd", "q_z * sh - bd", conv.test_any_shape, conv.CASES[7]),
    Mutation(convolve, "q_y * sh - bh + r_y", "q_y * sh - bh", conv.test_any_shape, conv.CASES[8]),
    Mutation(convolve, "q_x * pw + r_x", "q_x * pw", conv.test_any_shape, conv.CASES[8]),
    Mutation(convolve, "weights + length", "weights", conv.test_any_shape, conv.CASES[11]),
    Mutation(
        convolve,
        "values = tl.where(in_volume, values, 0.0).to(values.dtype)",
        "pass",
        conv.test_any_shape,
        conv.CASES[10],
    ),
    Mutation(convolve, "norm.scale + sample * CHANNELS", "norm.scale", conv.test_any_shape, conv.CASES[3]),
    Mutation(convolve, "after.shift + sample * OUT", "after.shift", conv.test_any_shape, conv.CASES[12]),
    Mutation(convolve, "after.bias + channel", "after.bias + 0 * channel", conv.test_any_shape, conv.CASES[1]),
    Mutation(convolve, "sums += residual", "sums = residual", conv.test_any_shape, conv.CASES[2]),
    Mutation(
        convolve,
        "source, x, z + 2, place",
        "source, x, z + 1, place",
        conv.test_four_slices_at_once,
        conv.DEEP[2],
        fixture="deep",
    ),
    Mutation(
        convolve,
        "inside & (z + 3 < x.depth)",
        "inside",
        conv.test_four_slices_at_once,
        conv.DEEP[0],
        fixture="deep",
    ),
    Mutation(
        convolve,
        "_within(row + tap // 3 - 1, x.height)",
        "row + tap // 3 - 1",
        conv.test_four_slices_at_once,
        conv.DEEP[1],
        fixture="deep",
    ),
    Mutation(
        convolve,
        "tl.minimum(x.depth - z, DEPTH)",
        "DEPTH",
        conv.test_moments_of_four_slices_at_once,
        conv.DEEP[2],
        fixture="deep",
    ),
    Mutation(
        convolve,
        "tl.minimum(places - tile * ROWS, ROWS)",
        "tl.minimum(places, ROWS)",
        conv.test_moments_are_those_of_the_stored_values,
        (*conv.WITH_MOMENTS[0], torch.float32),
    ),
    Mutation(
        convolve,
        "sample * tl.num_programs(1) + phase",
        "sample",
        conv.test_moments_are_those_of_the_stored_values,
        (*conv.WITH_MOMENTS[1], torch.float32),
    ),
    Mutation(
        convolve,
        "return rounded.to(tl.float32)",
        "return sums",
        conv.test_moments_are_those_of_the_stored_values,
        (*conv.WITH_MOMENTS[0], torch.bfloat16),
    ),
    Mutation(
        norm_of_moments,
        "difference * difference * (count * share)",
        "0.0",
        conv.test_programs_that_join_many_pieces,
        (pytest.MonkeyPatch(),),
    ),
    Mutation(
        norm_of_moments,
        "apart * apart * count",
        "apart * count",
        conv.test_moments_are_those_of_the_stored_values,
        (*conv.WITH_MOMENTS[0], torch.float32),
    ),
    Mutation(norm_silu, "scale + sample * CHANNELS", "scale", conv.test_norm_and_silu, (conv.ACTIVATED[2], False)),
    Mutation(
        norm_silu,
        "inside = (voxel < voxels)[:, None] & real[None, :]",
        "inside = real[None, :]",
        conv.test_norm_and_silu,
        (conv.ACTIVATED[2], True),
    ),
    *(
        Mutation(denoise_step, old, new, denoising.test_any_shape, (denoising.SHAPES[4], True))
        for old, new in (
            ("tl.maximum(clean, -1.0)", "clean"),
            ("d * noisy", "d * clean"),
            ("voxel // width % height", "voxel // height % width"),
            ("sample * volume.sample", "volume.sample"),
            ("result += f * drawn", "result += drawn"),
            ("y + sample * elements + element", "y + element"),
        )
    ),
]


@pytest.fixture
def mutate(tmp_path, monkeypatch):
    swapped = []

    def swap(mutation):
        swapped.append(mutation.module)
        name = mutation.module.__name__
        with open(mutation.module.__file__) as file:
            source = file.read()
        path = tmp_path / f"{name.rpartition('.')[2]}.py"
        path.write_text(mutation.applied(source))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(package, name.rpartition(".")[2], module)
        spec.loader.exec_module(module)

    yield swap
    # Operations are registered by name with torch: the right ones again.
    monkeypatch.undo()
    for module in swapped:
        importlib.reload(module)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_the_fault_is_noticed(mutate, mutation, request):
    mutate(mutation)
    if mutation.fixture:
        request.getfixturevalue(mutation.fixture)
    # A wrong number, or what the strict interpreter finds; not a fault of the mutation itself.
    with pytest.raises((AssertionError, InterpreterError)) as failure:
        mutation.test(*mutation.arguments)
    assert isinstance(failure.value, AssertionError) or "KernelFaultError" in str(failure.value)
