"""An experiment by the installed command, on the validation of two folds, with tumors by hand and drawn live."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_networks
import yaml
from live_training import ALL_WEIGHTS

from nnunet_difftumor.demonstration.small_plan import write_small_plans
from nnunet_difftumor.runs.synthesis_log import read_log

TRAINER = "nnUNetTrainerDiffTumorDemo"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_live_and_hand_crafted_tumors_over_two_folds(prepared_phantom, tmp_path):
    weights = tiny_networks.write_weights(tmp_path / "weights", *ALL_WEIGHTS)
    write_small_plans(
        prepared_phantom.preprocessed, epochs=1, iterations_per_epoch=1, patch_size=(16, 32, 32), features=(4, 8, 8)
    )
    live = {"source": "live", "live": {"weights_folder": str(weights), "timeout_s": 60.0}}
    plan = {
        "name": "folds",
        "dataset": 501,
        "plans": "nnUNetPlansDiffTumorDemo",
        "device": "cpu",
        "seeds": [0],
        "folds": [0, 1],
        "epochs": 1,
        "iterations_per_epoch": 4,
        "baseline": "by_hand",
        "arms": {"by_hand": {"trainer": TRAINER}, "live": {"trainer": TRAINER, "settings": live}},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    out = tmp_path / "out"
    script = Path(sys.executable).with_name("difftumor")
    done = subprocess.run(
        [script, "experiment", tmp_path / "plan.yaml", "-o", out], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr

    splits = json.loads((prepared_phantom.preprocessed / "splits_final.json").read_text())
    validated = {case for split in splits[:2] for case in split["val"]}
    result = json.loads((out / "result.json").read_text())
    assert validated and result["tumors"] and not result["notes"]
    assert all(found["cases"] == len(validated) for found in result["tumors"].values())
    for fold in (0, 1):
        run = f"_seed_0_fold_{fold}"
        sources = {arm: set() for arm in plan["arms"]}
        for arm in plan["arms"]:
            evaluation = json.loads((out / "runs" / f"{arm}{run}" / "evaluation.json").read_text())
            assert all(set(found["cases"]) == set(splits[fold]["val"]) for found in evaluation["tumors"].values())
            (model,) = (out / "runs" / f"{arm}{run}").rglob(f"fold_{fold}")
            sources[arm] = {record["source"] for record in read_log(model, 0)}
        assert sources == {"by_hand": {"handcrafted"}, "live": {"live"}}
    first = {name: facts["first_weights_sha256"] for name, facts in result["runs"].items()}
    assert len(first) == 4 and all(first[f"by_hand_seed_0_fold_{n}"] == first[f"live_seed_0_fold_{n}"] for n in (0, 1))
