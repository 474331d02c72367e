"""The ahead-of-time gate: every kernel passes it for both architectures, and it fails where it should."""

import importlib.util
import json
import sys
from functools import partial

import pytest
import torch
from pages import DOCS, REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        specification = importlib.util.spec_from_file_location("compiled_kernels", BENCHMARKS / "compiled_kernels.py")
        module = importlib.util.module_from_spec(specification)
        patch.setitem(sys.modules, "compiled_kernels", module)  # dataclasses look their module up
        specification.loader.exec_module(module)
        yield module


class Launched:
    """A kernel that is launched with other options than its launcher gives."""

    def __init__(self, kernel, **options):
        self.kernel, self.options = kernel, options

    def __getitem__(self, grid):
        return lambda *arguments, **named: self.kernel[grid](*arguments, **{**named, **self.options})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_kernel_compiles_as_intended(benchmark, architecture):
    rows = benchmark.gate([case for case in benchmark.cases() if case.quick], [architecture])
    assert {row.kernel for row in rows} == {
        *("_search", "_take", "_add_up", "_forward", "_backward"),
        *("_attend", "_attend_linearly", "_project_and_add"),
        *("_chunk_moments", "_join_moments", "_apply", "_channel_gradients", "_input_gradient"),
        *("_note", "_write", "_denoise_step"),
        *("_convolve_deep", "_convolve_rows", "_norm_of_moments", "_norm_silu", "_standard_normal"),
    }
    assert not [row.line() for row in rows if row.missed]


def test_a_spill_and_a_missing_class_of_instructions_fail_the_gate(benchmark, monkeypatch, capsys, tmp_path):
    from nnunet_difftumor.kernels import spatial_linear_attention
    from nnunet_difftumor.kernels.triton import spatial_linear_attention as kernels

    # One warp for a tile of 64 positions, and products that the tensor cores cannot compute.
    monkeypatch.setattr(kernels, "_forward", Launched(kernels._forward, num_warps=1, PRECISION="ieee"))
    monkeypatch.setattr(kernels, "_POSITIONS_IN_THREE_PARTS", 64)
    qkv = torch.zeros(1, 96, 1, 8, 8)
    call = partial(spatial_linear_attention, qkv, heads=1)
    case = benchmark.Case("one warp", call, {"_forward": (benchmark.MATRIX,)})
    monkeypatch.setattr(benchmark, "cases", lambda: [case])
    monkeypatch.setattr(sys, "argv", ["", "--architectures", "90", "--json", str(tmp_path / "kernels.json")])
    assert benchmark.main() == 1
    assert "| one warp | forward | 1 |" in benchmark.table(json.loads((tmp_path / "kernels.json").read_text()))
    printed = capsys.readouterr().out
    assert "bytes spilled" in printed
    assert "no wgmma or mma" in printed
    assert "1 of 1 kernels MISSED" in printed


def test_the_page_shows_the_committed_results(benchmark):
    results = json.loads(benchmark.RESULTS.read_text())
    page = next(page for page in DOCS if page.name == "kernels.md").read_text()
    assert benchmark.table(results) in page
    assert not any(row["missed"] for row in results["kernels"])
    assert f"triton {results['triton']}" in page
    assert {row["case"] for row in results["kernels"]} == {case.name for case in benchmark.cases()}
