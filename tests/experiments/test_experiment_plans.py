"""Plans: what is refused and how, dry runs, scripts for Slurm, and the ready plans."""

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
import tiny_networks
from experiment_folders import make_dataset, make_test_cases, plan_record, write_plan
from live_training import ALL_WEIGHTS

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.experiments import working
from nnunet_difftumor.experiments.estimate import estimate
from nnunet_difftumor.experiments.planning.checks import checked_plan
from nnunet_difftumor.experiments.planning.reading import read_plan, ready_plans
from nnunet_difftumor.experiments.run_folder import make_run_folder, note
from nnunet_difftumor.experiments.runs import runs_of
from nnunet_difftumor.experiments.settings import splits_of

READY = ["annotation_count", "cross_organ", "diffusion_steps", "five_fold", "label_free", "mixing_ratio", "shape_steps"]


@pytest.fixture
def place(prepared_phantom, tmp_path, monkeypatch) -> Path:
    """A folder with test cases, a prepared dataset 7, and weights in nnUNet_results."""
    for name in ("preprocessed", "results", "raw"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    make_dataset(tmp_path / "preprocessed", prepared_phantom.preprocessed)
    make_test_cases(tmp_path)
    return tmp_path


def run(place: Path, *words: str, **changes) -> int:
    plan = write_plan(place / "plan.yaml", plan_record(**changes))
    return main(["experiment", str(plan), "-o", str(place / "out"), *words])


ARMS = plan_record()["arms"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epocs": 3}, "unknown key 'epocs'; did you mean epochs?"),
        ({"epochs": 0}, "epochs is 0, expected a whole number of at least 1"),
        ({"epochs": None}, "epochs is missing"),
        ({"seeds": []}, "seeds is [], expected different"),
        ({"seeds": [1, 1]}, "seeds is [1, 1]"),
        ({"seeds": [True]}, "seeds is [true]"),
        ({"baseline": "witout"}, "baseline is 'witout', which is no arm; did you mean without?"),
        ({"arms": {"without": ARMS["without"]}}, "expected two arms or more"),
        ({"arms": ARMS | {"../up": {"trainer": "nnUNetTrainerDiffTumor"}}}, "expected two arms or more by name"),
        ({"arms": ARMS | {"other": {"trainer": "nnUNetTrainerDiffTumr"}}}, "did you mean nnUNetTrainerDiffTumor?"),
        ({"arms": ARMS | {"other": {"trainer": "nnUNetTrainer"}}}, "expected one of this package"),
        (
            {"arms": ARMS | {"other": {"trainer": "nnUNetTrainerDiffTumor", "settings": {"presett": "placebo"}}}},
            "arms.other.settings: unknown key 'presett'; did you mean preset?",
        ),
        (
            {"arms": ARMS | {"other": {"trainer": "nnUNetTrainerDiffTumor", "settings": {"seed": 1}}}},
            "arms.other: settings has seed",
        ),
        (
            {"arms": ARMS | {"other": {"trainer": "nnUNetTrainerDiffTumor", "cases": 301}}},
            "arms.other: cases is 301, but fold 0 has 300 real training cases",
        ),
        (
            {"arms": ARMS | {"other": {"trainer": "nnUNetTrainerDiffTumor", "cases": ["real_000", "held_out"]}}},
            "cases has held_out, which fold 0 does not train on",
        ),
        ({"arms": ARMS | {"other": {"trainer": "nnUNetTrainerDiffTumor", "against": "other"}}}, "is the arm itself"),
        ({"folds": [0, 1]}, "the test cases are the same for all"),
        ({"folds": [9]}, "fold 9 was asked for, but the dataset has folds 0 to 4"),
        ({"folds": ["all"], "test": None}, "leaves no case to validate"),
        (
            {"test": None, "arms": ARMS | {"free": {"trainer": "nnUNetTrainerDiffTumorLabelFree"}}},
            "arms.free is label-free, and validates on synthetic tumors",
        ),
        ({"test": {"images": "nowhere", "labels": "labels"}}, "nowhere: no such folder"),
        ({"test": {"images": "images"}}, "test: labels is missing"),
        ({"evaluate": {"match": "dice"}}, 'evaluate: match is "dice", expected one of any-overlap'),
        ({"published": [{"arm": "x", "figure": "dsc", "value": 1, "source": "s"}]}, 'published[0]: arm is "x"'),
        (
            {"published": [{"arm": "realistic", "figure": "dice", "value": 1, "source": "s"}]},
            'published[0]: figure is "dice", expected one of dsc',
        ),
        ({"slurm": {"gres": "gpu:1\nrm -rf"}}, "slurm is"),
        ({"slurm": {"-x y": "1"}}, "slurm is"),
        ({"plans": "nnUNetPlansOther"}, "nnUNetPlansOther.json: not found"),
        ({"configuration": "4d"}, "configuration is '4d', expected one in"),
        ({"dataset": 8}, "8: expected one Dataset008_NAME"),
        ({"device": "gpu"}, 'device is "gpu", expected one of cuda, cpu, mps'),
    ],
)
def test_mistakes_in_a_plan_are_one_line_that_names_the_key(place, capsys, changes, said):
    assert run(place, "--dry-run", **changes) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: b\nname: [", "line 2: is not valid YAML"),
        ("- a\n- b\n", "expected keys of a plan"),
        ("name: a\nname: b\n", "line 2: name is there twice"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("1: 2\n", "unknown key 1"),
    ],
)
def test_files_that_are_no_plan_are_refused(tmp_path, content, said):
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"plan\.yaml") as caught:
        read_plan(path)
    assert said in str(caught.value)


def test_names_of_ready_plans_are_corrected():
    with pytest.raises(InputError, match="did you mean label_free"):
        read_plan("label_fre", dataset_id=1)
    with pytest.raises(InputError, match="name one with `dataset_id`"):
        read_plan("label_free")


def test_dry_run_prints_every_command_and_writes_nothing(place, capsys):
    before = sorted(place.rglob("*"))
    assert run(place, "--dry-run", "--jobs", "2", seconds_per_iteration=0.5, device="cpu") == 0
    printed = capsys.readouterr().out
    assert printed.count("nnUNetv2_train 7 3d_fullres 0 -tr nnUNetTrainerDiffTumor") == 4
    assert printed.count("nnUNetv2_predict -i") == printed.count("difftumor evaluate") == 4
    assert '"shares": {"healthy": 0, "real": 1, "synthetic": 0}, "seed": 1' in printed
    assert (
        "about 10.0 seconds for 4 runs, 2 at a time" in printed and "from seconds_per_iteration of the plan" in printed
    )
    assert sorted(place.rglob("*")) == sorted([*before, place / "plan.yaml"])


@pytest.mark.parametrize("name", READY)
def test_every_ready_plan_passes_a_dry_run(place, capsys, name):
    tiny_networks.write_weights(place / "results" / "difftumor_weights", *ALL_WEIGHTS)
    words = ["experiment", name, "-d", "7", "--dry-run", "--device", "cpu"]
    if name != "five_fold":
        words += ["--images", str(place / "images"), "--true-labels", str(place / "labels")]
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "nnUNetv2_train 7 3d_fullres" in printed and "no estimate before" in printed
    assert ("nnUNetv2_predict" in printed) == (name != "five_fold")


def test_ready_plans_are_listed_and_ask_something(capsys):
    assert sorted(ready_plans()) == READY and all(about.endswith("?") for about in ready_plans().values())
    assert main(["experiment", "--list"]) == 0
    assert all(name in capsys.readouterr().out for name in ["label_free"])


def test_missing_weights_are_named_before_anything_is_trained(place, capsys):
    words = ["experiment", "diffusion_steps", "-d", "7", "--images", str(place / "images")]
    assert main([*words, "--true-labels", str(place / "labels"), "--dry-run"]) == 2
    assert "arms.steps_1" in capsys.readouterr().err


def test_slurm_script_is_valid_and_has_a_task_for_each_run_that_is_left(place, capsys):
    options = {"gres": "gpu:1", "time": "24:00:00"}
    assert run(place, "--slurm", slurm=options) == 0
    script = place / "out" / "experiment.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert "#SBATCH --array=0,1,2,3\n" in text and "#SBATCH --gres=gpu:1\n" in text
    assert '--run "$SLURM_ARRAY_TASK_ID"' in text and str(place / "out" / "plan.yaml") in text
    stored = read_plan(place / "out" / "plan.yaml")
    assert stored == read_plan(place / "plan.yaml")
    runs = runs_of(stored, (place / "out").absolute(), place)
    runs[1].folder.mkdir(parents=True)
    runs[1].evaluation.touch()
    assert run(place, "--slurm", slurm=options) == 0 and "#SBATCH --array=0,2,3\n" in script.read_text()


def test_a_plan_or_dataset_that_changed_is_refused_with_the_difference(place, capsys):
    assert run(place, "--slurm") == 0
    assert run(place, "--slurm", about="said otherwise", slurm={"time": "1:00:00"}) == 0
    assert run(place, "--slurm", epochs=3, seeds=[0, 2]) == 2
    assert (
        "was begun with another plan: seeds was [0, 1] and is [0, 2]; epochs was 2 and is 3" in capsys.readouterr().err
    )
    splits = place / "preprocessed" / "Dataset007_Planned" / "splits_final.json"
    splits.write_text(splits.read_text().replace("real_001", "real_999"))
    assert run(place, "--slurm") == 2
    assert "splits_final.json: has changed since" in capsys.readouterr().err


def test_folders_with_other_files_are_never_touched(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "mine.txt").touch()
    assert run(place, "--slurm") == 2
    assert "holds files that are not of an experiment" in capsys.readouterr().err
    assert [path.name for path in (place / "out").iterdir()] == ["mine.txt"]


def runs_in(place: Path, **changes):
    plan = checked_plan(plan_record(**changes), where="plan.yaml", folder=place)
    return runs_of(plan, place / "out", place / "preprocessed" / "Dataset007_Planned")


def test_a_run_has_links_to_the_dataset_and_its_own_settings_folds_and_length(place):
    arms = ARMS | {"few": {"trainer": "nnUNetTrainerDiffTumor", "cases": 5, "settings": {"preset": "placebo"}}}
    one = next(run for run in runs_in(place, arms=arms) if (run.arm, run.seed) == ("few", 1))
    make_run_folder(one)
    content = {path.name: json.loads(path.read_text()) for path in one.preprocessed.glob("*.json")}
    assert (content["difftumor.json"]["preset"], content["difftumor.json"]["seed"]) == ("placebo", 1)
    assert len(content["splits_final.json"][0]["train"]) == 5 and len(content["splits_final.json"][1]["train"]) == 300
    assert content["nnUNetPlansDiffTumor.json"]["difftumor_training"] == {"epochs": 2, "iterations_per_epoch": 5}
    assert (one.preprocessed / "dataset.json").is_symlink()
    source = json.loads((one.dataset_folder / "difftumor.json").read_text())
    assert source["preset"] == "realistic" and source["seed"] == 0


def test_fewer_cases_are_a_part_of_more_and_seeds_draw_others(place):
    splits = json.loads((place / "preprocessed" / "Dataset007_Planned" / "splits_final.json").read_text())

    def drawn(cases: int, seed: int) -> set[str]:
        arm = checked_plan(
            plan_record(arms=ARMS | {"a": {"trainer": "nnUNetTrainerDiffTumor", "cases": cases}}),
            where="",
            folder=place,
        ).arms["a"]
        return set(splits_of(splits, arm, fold=0, seed=seed, where="")[0]["train"])

    assert drawn(10, 0) < drawn(30, 0) and len(drawn(30, 0)) == 30
    assert drawn(30, 0) == drawn(30, 0) != drawn(30, 1)


def test_a_trained_run_whose_checkpoint_is_gone_is_named_with_what_to_do(place):
    one = runs_in(place)[0]
    one.model.mkdir(parents=True)
    note(one, trained={"seconds": 1.0, "iterations": 10})
    with pytest.raises(InputError, match=r"checkpoint_final.pth: is gone, but the training of without_seed_0_fold_0"):
        working.work(one)


def test_two_processes_do_not_work_at_one_run(place):
    """The second one waits, and then finds the run finished: its folder holds nothing that could be trained."""
    fcntl = pytest.importorskip("fcntl")
    one, lines = runs_in(place)[0], []
    one.folder.mkdir(parents=True)
    with open(one.folder / ".lock", "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = threading.Thread(target=working.work, args=[one], kwargs={"report": lines.append})
        second.start()
        until = time.monotonic() + 60
        while not lines:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert lines == ["without_seed_0_fold_0: another process is at it; waiting for its end"]
        one.evaluation.touch()
    second.join(60)
    assert not second.is_alive() and not one.preprocessed.exists()


def test_a_checkpoint_that_was_cut_off_is_removed(place):
    one = runs_in(place)[0]
    one.model.mkdir(parents=True)
    (one.model / "checkpoint_latest.pth").write_bytes(b"PK\x03\x04 cut off")
    lines = []

    class StoppedError(Exception):
        pass

    class Stopping:
        def run(self, *words, show):
            assert "--c" not in words
            raise StoppedError

    with pytest.raises(StoppedError):
        working._train(one, Stopping(), lines.append)
    assert not (one.model / "checkpoint_latest.pth").exists() and "was not written to its end" in lines[0]


def test_estimate_comes_from_finished_runs(place):
    runs = runs_in(place)
    for run_, seconds in zip(runs[:3], (20.0, 40.0, 30.0), strict=True):
        run_.folder.mkdir(parents=True)
        run_.evaluation.touch()
        note(run_, trained={"seconds": seconds, "iterations": 10}, predicted={"seconds": 30.0})
    said = estimate(runs)
    assert (
        "about 1.0 minutes for 1 runs" in said and "3 s per iteration, from the median of 3 finished trainings" in said
    )


def test_a_flat_configuration_is_refused(place, capsys):
    path = place / "preprocessed" / "Dataset007_Planned" / "nnUNetPlansDiffTumor.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"] = plans["configurations"]["3d_fullres"] | {"patch_size": [64, 64]}
    path.write_text(json.dumps(plans))
    assert run(place, "--dry-run", configuration="2d") == 2
    assert "configuration is '2d', whose patches are flat" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_unknown_runs_are_refused(place, capsys):
    assert run(place, "--run", "realistc_seed_0_fold_0") == 2
    assert "did you mean realistic_seed_0_fold_0?" in capsys.readouterr().err
    assert run(place, "--run", "4") == 2
    assert "expected a number from 0 to 3" in capsys.readouterr().err


def test_names_of_training_cases_among_test_cases_are_noted(place):
    (place / "images" / "real_001_0000.nii.gz").touch()
    (place / "labels" / "real_001.nii.gz").touch()
    from nnunet_difftumor.experiments.experiment import _check

    (note_,) = _check(runs_in(place)[0].plan, runs_in(place))
    assert "real_001" in note_
    (place / "labels" / "real_001.nii.gz").unlink()
    with pytest.raises(InputError, match="nothing of real_001"):
        _check(runs_in(place)[0].plan, runs_in(place))
