"""The kernels' benchmarks: what is wrong gets no time, and the GPU suite runs to its end where there is little else."""

import importlib
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import tiny_networks
import torch
from pages import REPOSITORY

from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture(scope="module")
def module():
    """Imports a module of benchmarks/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module


def small_case(module):
    """Linear attention by its reference, on a CPU."""
    (case,) = module("kernel_cases").cases(
        "spatial_linear_attention", batch=1, dtype=torch.float32, device="cpu", small=True
    )
    return case


def timed(module, case):
    timing = module("kernel_timing")
    ceilings = timing.Ceilings(1e10, 1e11, 1e-6)
    rows = timing.time_case(
        case, batch=1, dtype="float32", device="cpu", ceilings=ceilings, with_compile=False, least=1
    )
    return list(rows)


def test_every_variant_is_timed_in_both_directions(module):
    rows = timed(module, small_case(module))
    assert [(row.variant, row.direction) for row in rows] == [
        ("ours", "forward"),
        ("plain PyTorch", "forward"),
        ("ours", "backward"),
        ("plain PyTorch", "backward"),
    ]
    assert all(row.p20_us <= row.median_us <= row.p80_us and row.of_floor > 0 for row in rows)
    assert rows[0].error < 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda out: out * 1.0001,
        lambda out: torch.where(torch.arange(out.numel()).view(out.shape) == 0, torch.nan, out),
        lambda out: out.detach() + 0.999 * (out - out.detach()),  # its gradient only
    ],
)
def test_without_a_right_result_nothing_is_timed(module, wrong):
    case = small_case(module)
    rows = timed(module, replace(case, ours=lambda qkv: wrong(case.ours(qkv))))
    assert rows and all(row.median_us is None and row.remark.startswith("REFUSED: error ") for row in rows)
    text = module("kernel_timing").summary(rows)
    assert text.count("REFUSED") == 2 and "nan" not in text


@pytest.fixture
def tumor_rows(module, monkeypatch):
    """Rows of these paths, of the early tumor, as small as they come."""
    suite, samplers = module("gpu_suite"), module("tumor_paths").SMALL_SAMPLERS

    def rows(paths, limits):
        monkeypatch.setattr(suite, "PATHS", paths)
        monkeypatch.setattr(suite, "PATH_LIMITS", limits)
        monkeypatch.setattr(suite, "SMALL_SAMPLERS", {"early": samplers["early"]})
        return list(suite.time_tumors(device="cpu", small=True, left_s=lambda: 60))

    return rows


def test_a_path_that_decodes_wrongly_gets_no_time(module, tumor_rows):
    paths = module("tumor_paths")

    class Wrong(paths.PlainPyTorch):
        def decode(self, embeddings):
            return super().decode(embeddings) * 1.001

    rows = tumor_rows({"right": paths.PlainPyTorch, "wrong": Wrong}, {"right": 1e-5, "wrong": 1e-5})
    stages = [*paths.STAGES, "draw"]
    assert [(row.path, row.stage) for row in rows] == [(path, stage) for path in ("right", "wrong") for stage in stages]
    assert all((row.median_ms is not None) == (row.path == "right") for row in rows)
    assert all(row.remark.startswith("REFUSED: error of decode ") for row in rows if row.path == "wrong")
    assert "REFUSED" in module("gpu_suite").tumor_table(rows)


def test_paths_with_a_graph_are_checked_by_the_bounds_of_their_precision(module, tumor_rows):
    paths = module("tumor_paths")

    def without_kernels(path):
        return type(path.__name__, (path,), {"operations": "auto"})

    single, half = (without_kernels(path) for path in (paths.Graph, paths.BFloat16Graph))
    rows = tumor_rows({"single": single, "half": half}, {"single": 1e-5, "half": 2e-2})
    assert all(row.remark == "" and row.median_ms > 0 for row in rows)
    errors = {(row.path, row.stage): row.error for row in rows}
    assert errors["half", "decode"] > 1e-4 > errors["single", "decode"]
    assert errors["half", "encode"] > 1e-4 > errors["single", "encode"] and errors["half", "draw"] < 1e-5
    assert all("REFUSED" in row.remark for row in tumor_rows({"half": half}, {"half": 1e-5}))


def test_a_path_that_draws_the_first_patch_again_gets_no_time(module, tumor_rows):
    paths = module("tumor_paths")

    class Stale(paths.Graph):
        operations, drawn = "auto", None

        def draw(self, patches):
            self.drawn = super().draw(patches) if self.drawn is None else self.drawn
            return self.drawn

    rows = tumor_rows({"stale": Stale}, {"stale": 1e-5})
    assert all(row.remark.startswith("REFUSED: error of draw ") for row in rows)


def test_only_what_the_tumor_reaches_is_changed(module):
    paths = module("tumor_paths")
    sampler = paths.SMALL_SAMPLERS["late"]
    path = paths.PlainPyTorch(paths.random_model(sampler, device="cpu", small=True), sampler)
    patches = paths.Patches.drawn(2, 32, sampler=sampler, device="cpu")
    with path.running():
        drawn = path.draw(patches)
    assert torch.equal(drawn[:, :, :2], patches.volume[:, :, :2])
    assert (drawn != patches.volume)[patches.tumor].all()


def test_rows_are_added_with_their_origin_and_other_columns_are_refused(module, tmp_path):
    results, path = module("result_rows"), tmp_path / "new" / "rows.csv"
    rows = timed(module, small_case(module))[:1]
    for device in ("a", "b"):
        results.append_rows(path, rows, {"device": device})
    assert [row["device"] for row in results.read_rows(path)] == ["a", "b"]
    assert results.read_rows(path)[0]["variant"] == "ours" and results.read_rows(path)[0]["peak_mb"] == ""
    with pytest.raises(ValueError, match="has the columns"):
        results.append_rows(path, rows, {"machine": "c"})


def test_the_first_checks_are_an_odd_and_a_real_shape_of_every_operation(module):
    checks = module("kernel_checks").checks(device="cpu")
    first = [check for check in checks if check.first]
    assert checks[: len(first)] == first and 8 <= len(first) < len(checks) / 3
    assert {name for check in first for name in check.operations} == set(module("kernel_cases").OPERATIONS)


def test_a_check_that_fails_makes_its_operations_wrong_and_nothing_else(module):
    def fails():
        raise RuntimeError("an illegal memory access\nwas encountered")

    (found,) = module("kernel_checks").Check(("depth_attention",), fails, True).findings()
    assert not found.good and found.operation == "depth_attention"
    assert found.quantity == "RuntimeError: an illegal memory access"


def test_checks_run_in_processes_and_no_longer_than_there_is_time(module, tmp_path, capsys):
    suite, kernel_checks = module("gpu_suite"), module("kernel_checks")
    here = kernel_checks.Finding("depth_attention", "1", "float32", "", "process", os.getpid(), math.inf)
    quick = kernel_checks.Check(("depth_attention",), partial(elsewhere, here), True)
    endless = kernel_checks.Check(("depth_attention",), partial(time.sleep, 600), True)
    store = suite.Store(tmp_path, {"device": "cuda"})
    found = suite.check_operations(
        [quick, endless],
        device="cuda",
        left_s=lambda: 0.1 if list(tmp_path.iterdir()) else 120,
        store=store,
    )
    assert [finding.error != os.getpid() for finding in found] == [True]
    assert "left out, no time left: 1 of 2 calls" in capsys.readouterr().out
    assert len((tmp_path / "kernel_checks.csv").read_text().splitlines()) == 2


def elsewhere(finding):
    """For a process of its own."""
    return [replace(finding, error=float(os.getpid()))]


def test_render_is_timed_with_its_parts_in_every_batch(module, monkeypatch, tmp_path):
    times = module("render_times")
    renderer = DiffusionRenderer(tiny_networks.models("early", "late"), organ="liver", threads=1)
    monkeypatch.setattr(times, "open_renderer", lambda weights, device: renderer)
    rows = list(times.rows("cpu", weights=tmp_path, sizes=["tiny", "small"], batches=(1, 2), tumors=2))
    assert [(row.size, row.batch, row.tumors) for row in rows] == [
        (size, batch, 2) for batch in (1, 2) for size in ("tiny", "small")
    ]
    for row in rows:
        parts = (row.site_ms, row.load_ms, row.draw_ms)
        assert all(part > 0 for part in parts) and sum(parts) < 1.5 * row.slowest_ms
        assert 0 < row.beside_networks_ms < row.draw_ms
    late = list(times.rows("cpu", weights=tmp_path, sizes=["tiny"], batches=(1,), tumors=2, left_s=lambda: -1))
    assert [row.remark for row in late] == ["left out: no time left"] and "left out" in times.table(late)


@pytest.mark.parametrize(
    ("error", "timed"), [(0.0, ["checks", "render", "live", "checks"]), (math.nan, ["checks"] * 2)]
)
def test_what_matters_most_comes_first_and_nothing_is_timed_after_a_wrong_check(
    module, monkeypatch, tmp_path, capsys, error, timed
):
    suite = module("gpu_suite")
    finding, done = module("kernel_checks").Finding("depth_attention", "", "", "", "output", error, 1.0), []
    stand_ins = {
        "check_operations": lambda chosen, **_: [done.append("checks"), finding][1:],
        "time_renderer": lambda **_: done.append("render"),
        "time_live_epoch": lambda folder, **_: done.append("live"),
        "time_tumors": lambda **_: iter(()),
        "measure_ceilings": lambda device: None,
        "time_operations": lambda **_: iter(()),
        "summary": lambda rows: "",
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(suite, name, stand_in)
    store = suite.Store(tmp_path, {})
    wrong = suite.run("cuda", store, small=False, live=tmp_path, left_s=lambda: 60)
    assert done == timed and wrong == (error != 0)
    assert ("REFUSED: render() and the live epoch" in capsys.readouterr().out) == wrong


# Finds nothing but torch, triton, numpy, einops, what torch requires, and this clone; then runs the suite at the least
# shapes.
BARE = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path

del sys.argv[0]  # -c
REQUIRED = {"torch", "torchgen", "functorch", "triton", "numpy", "einops"}
REQUIRED |= {"typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock"}
OWN = {"nnunet_difftumor", "strict_interpreter", *(path.stem for path in Path(sys.argv[0]).parent.glob("*.py"))}

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = REQUIRED | OWN | sys.stdlib_module_names
        if name.partition(".")[0] in known or name.startswith("_sysconfigdata_"):
            return PathFinder.find_spec(name, path, target)

sys.meta_path[:] = BuiltinImporter, FrozenImporter, Bare
sys.path[0] = str(Path(sys.argv[0]).parent)
import gpu_suite
import kernel_checks
import tumor_paths

for name in ("ATTENTIONS", "CONVOLUTIONS", "NORMS", "QUANTIZATIONS", "NOISES"):
    setattr(kernel_checks, name, getattr(kernel_checks, name)[:1] * 2)
gpu_suite.PATHS = {"plain PyTorch": tumor_paths.PlainPyTorch}
gpu_suite.OPERATIONS = ("vector_quantize",)
sys.exit(gpu_suite.main())
"""


@pytest.mark.slow
def test_the_suite_runs_to_its_end_in_a_bare_environment_without_a_gpu(tmp_path):
    suite = BENCHMARKS / "gpu_suite.py"
    done = subprocess.run(
        [sys.executable, "-c", BARE, suite, "--small", "--results", tmp_path],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout and "REFUSED" not in done.stdout
    counts = {path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("*.csv")}
    # Two kinds of tumor, five stages and the whole; ours, plain and best.
    assert counts.pop("kernel_checks.csv") > 40
    assert counts == {"tumor_times.csv": 1 + 2 * 6, "kernel_times.csv": 1 + 3}
