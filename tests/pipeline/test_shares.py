"""What training samples show: real cases, synthetic tumors, healthy cases as they are, as often as the settings say."""

import json
from collections import Counter
from pathlib import Path

import pytest
from trainer_of import trainer_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.loader import SamplingPlan
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.sample_shares import PUBLIC_CODE, SampleShares
from nnunet_difftumor.synthesis.organ import Organ

ORGANS = (Organ("liver", (1,), 2, (2,)),)


def drawn(shares: SampleShares, *, real: int, healthy: int, count: int = 10_000) -> Counter:
    """Kinds of samples, each of which must be of a case of that kind."""
    train = tuple(f"real_{number}" for number in range(real))
    bases = tuple(f"healthy_{number}" for number in range(healthy))
    plan = SamplingPlan((0, 0), 0, 0, 1, shares, train, bases, bases)
    found: Counter = Counter()
    for batch in range(count // 2):
        for position in range(2):
            sample = plan.sample(batch, position)
            assert sample.startswith("real" if sample.kind == "real" else "healthy")
            assert (sample.tumor_rng is not None) == (sample.kind == "synthetic")
            found[sample.kind] += 1
    return found


@pytest.mark.parametrize(
    ("real", "healthy", "expected"),
    [
        (95, 116, (95 / 211, 58 / 211, 58 / 211)),
        (200, 20, (200 / 220, 10 / 220, 10 / 220)),
        (5, 300, (5 / 305, 150 / 305, 150 / 305)),
    ],
)
def test_the_public_code_draws_cases_alike_and_puts_tumors_into_half_of_the_healthy_ones(real, healthy, expected):
    config = DiffTumorConfig(organs=ORGANS, preset="difftumor", shares=PRESETS["difftumor"].shares)
    found = drawn(config.shares_for(real=real, healthy=healthy), real=real, healthy=healthy)
    for kind, share in zip(("real", "synthetic", "healthy"), expected, strict=True):
        assert abs(found[kind] / 10_000 - share) < 0.01


def test_shares_are_what_the_settings_say():
    found = drawn(SampleShares(real=0.2, synthetic=0.7, healthy=0.1), real=4, healthy=3)
    assert [abs(found[kind] / 10_000 - share) < 0.01 for kind, share in (("real", 0.2), ("synthetic", 0.7))] == [
        True
    ] * 2


def test_healthy_cases_stand_in_for_real_ones_that_are_not_there():
    config = DiffTumorConfig(organs=ORGANS)
    assert config.shares_for(real=0, healthy=9) == SampleShares(0.0, 0.5, 0.5)
    public = DiffTumorConfig(organs=ORGANS, shares=PUBLIC_CODE)
    assert public.shares_for(real=0, healthy=9) == SampleShares(0.0, 0.5, 0.5)


def test_healthy_samples_without_a_healthy_case_are_refused():
    config = DiffTumorConfig(organs=ORGANS, shares=SampleShares(0.5, 0.3, 0.2))
    with pytest.raises(InputError, match=r"shares ask for healthy samples \(real 0\.5, .*\), but every"):
        config.shares_for(real=3, healthy=0)


def test_the_log_says_what_was_asked_and_drawn(prepared_phantom, copy_of_prepared_phantom, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    path = copy_of_prepared_phantom / "difftumor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shares": "public_code"}))
    trainer = trainer_of(copy_of_prepared_phantom, initialize=False)
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 5, 1
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    # One real case and four healthy ones.
    asked = "shares of samples asked: real 0.2, synthetic 0.4, healthy 0.4 (as DiffTumor's public code)"
    assert asked in log
    (summary,) = Path(trainer.output_folder).glob("synthesis_log/epoch_*.json")
    kinds = json.loads(summary.read_text())["kinds"]
    samples = sum(found["samples"] for found in kinds.values())
    assert samples == 5 * trainer.batch_size
    told = ", ".join(
        f"{kind} {kinds[kind]['samples'] / samples:.3f} ({kinds[kind]['asked']:.3f} asked)" for kind in kinds
    )
    assert f"Samples: {told}" in log
