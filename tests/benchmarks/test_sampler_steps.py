"""The study of few steps: what it compares, and what it measures."""

import importlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tiny_networks
from pages import REPOSITORY

from nnunet_difftumor.synthesis.spec import SeedStream

# Of the tiny model, whose schedule has 10 steps.
STEPS = (10, 5, 2)


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        yield importlib.import_module("sampler_steps")


@pytest.fixture(scope="module")
def liver(study, tmp_path_factory):
    """A noisy ball."""
    folder, spacing_mm, edge = tmp_path_factory.mktemp("scan"), 2.0, 64
    axes = np.ogrid[:edge, :edge, :edge]
    ball = sum((axis - edge / 2) ** 2 for axis in axes) < (edge / 2 - 4) ** 2
    hu = np.random.default_rng(0).normal(0, 15, ball.shape) + np.where(ball, 110, -100)
    for name, values in (("ct", hu.astype(np.int16)), ("labels", ball.astype(np.uint8))):
        nib.save(nib.Nifti1Image(values, np.diag([spacing_mm] * 3 + [1])), folder / f"{name}.nii.gz")
    return study.Liver(folder)


@pytest.fixture(scope="module")
def spec(liver):
    (found,) = liver.specs(1, size="medium")
    return found


def test_another_start_changes_the_noise_of_the_latent_and_nothing_else(study, spec):
    other = study.OtherStart(**vars(spec))
    for stream in SeedStream:
        same = spec.generator(stream).random() == other.generator(stream).random()
        assert same == (stream is not SeedStream.LATENT)
    assert type(replace(other, seed=spec.seed)) is study.OtherStart


@pytest.mark.slow
def test_every_variant_draws_its_steps_at_the_same_place(study, liver, spec, monkeypatch):
    model, described = tiny_networks.models("late")["late"]
    calls = []
    model.unet.register_forward_hook(lambda *_: calls.append(1))
    variants = [study.Variant(str(steps), "late_200", "ddim", steps) for steps in STEPS]
    variants.append(study.Variant("all", "late_200", "ddpm", 10))
    monkeypatch.setattr(study, "VARIANTS", variants)
    found = {}
    for variant, (tumor,) in study.compared(liver, [spec], {"late_200": (model, described)}):
        assert len(calls) == variant.steps
        calls.clear()
        found[variant.name] = tumor
    first = found["10"]
    kept = first.hu == first.before
    for tumor in found.values():
        assert np.array_equal(tumor.mask, first.mask) and np.array_equal(tumor.hu[kept], first.hu[kept])
    assert study.figures(first, first)["rms_difference_hu"] == 0
    assert study.figures(found["2"], first)["rms_difference_hu"] > 1


def test_the_difference_is_that_of_the_inside(study, liver, spec):
    renderer = study.renderer_of(
        study.Variant("2", "late_200", "ddim", 2), {"late_200": tiny_networks.models("late")["late"]}
    )
    reference, tumor = (liver.drawn(renderer, spec) for _ in range(2))
    tumor.hu += np.where(tumor.mask, np.float32(7), np.float32(1000))
    found = study.figures(tumor, reference)
    assert found["rms_difference_hu"] == pytest.approx(7, abs=1e-3)
    assert found["mean_difference_hu"] == pytest.approx(7, abs=1e-3)
    assert found["mean_hu"] - study.figures(reference, reference)["mean_hu"] == pytest.approx(7, abs=1e-3)
    without = study.figures(tumor, None)
    assert without["rms_difference_hu"] is None and without["mean_hu"] == found["mean_hu"]


def test_medians_tell_how_many_they_are_of_and_tables_show_what_is_missing(study, liver, spec):
    renderer = study.renderer_of(
        study.Variant("2", "late_200", "ddim", 2), {"late_200": tiny_networks.models("late")["late"]}
    )
    tumor = liver.drawn(renderer, spec)
    found = study.summary([tumor, tumor], [tumor, None])
    assert found["measured"]["rms_difference_hu"] == 1 and found["measured"]["mean_hu"] == 2
    row = study.table({"some": found | {"networks": study.NO_TIME | {"first_estimate": 9.0}}}).splitlines()[-1]
    assert row.startswith("| some | 0 | 0 |") and row.endswith("| 9 | - | - |")


def test_networks_take_longer_with_more_steps(study):
    model, _ = tiny_networks.models("late")["late"]
    few, many = (
        study.network_seconds(study.Variant("", "late_200", "ddim", steps), model, (24, 24, 24)) for steps in (1, 10)
    )
    assert 0 < few < many


def test_the_first_estimate_is_larger_the_nearer_it_is_to_the_last_step(study):
    model, _ = tiny_networks.models("late")["late"]
    late, early = (study.first_estimate(study.Variant("", "late_200", "ddim", steps), model) for steps in (10, 2))
    # Of noise, the estimate is noise over the root of the signal at that step.
    assert late > 10 * early > 0
    assert study.first_estimate(study.Variant("", "late_200", "ddpm", 10), model) is None


def test_the_documented_table_is_that_of_the_stored_result(study):
    stored = json.loads((study.FOLDER / study.RESULT).read_text())
    assert study.table(stored["variants"]) in (REPOSITORY / "docs" / "performance.md").read_text()
