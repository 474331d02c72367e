"""The baseline of the CPU benchmark computes what our networks compute, and its page shows the stored result."""

import copy
import json
import sys

import pytest
from pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "performance.md"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        import diffusion_cpu
    finally:
        sys.path.pop(0)
    return diffusion_cpu


def test_the_public_steps_and_ours_draw_the_same_tumor(benchmark):
    from nnunet_difftumor.generative.diffusion.fast import FastSampler

    theirs, seen = benchmark.public(benchmark.networks(), 32)
    ours, found = benchmark.own(FastSampler(benchmark.networks()), 32)
    assert set(theirs.seconds) == set(ours.seconds) == {*benchmark.STAGES, "blend"}
    assert (seen["indices"] != found["indices"]).double().mean() < 0.01
    # Four steps with random weights, each of which multiplies what rounding did before.
    for stage, tolerance in {"condition": 1e-5, "latent": 1e-4}.items():
        assert benchmark.relative(found[stage], seen[stage]) < tolerance, stage
    volume, tumor, _ = benchmark.inputs(32)
    assert benchmark.relative(found["made"], seen["made"]) < 1e-2
    assert (found["made"] - (volume + 1) / 2).abs()[tumor].mean() > 0.05


def test_the_page_has_the_tables_of_the_stored_result(benchmark):
    assert benchmark.tables(json.loads(benchmark.RESULTS.read_text())) in PAGE.read_text()


def test_a_missed_bar_is_reported(benchmark, tmp_path, capsys):
    result = json.loads(benchmark.RESULTS.read_text())
    slow, other = copy.deepcopy(result), copy.deepcopy(result)
    for each in slow["rounds"]:
        each["own"] = each["public"]
    other["accuracy"]["decode"] = 2e-5
    for changed, missed in ((slow, "early tumor, float32"), (other, "error of decode")):
        (tmp_path / "result.json").write_text(json.dumps(changed))
        assert benchmark.main(1, stored=tmp_path / "result.json") == 1
        assert missed in capsys.readouterr().out.splitlines()[-1]
