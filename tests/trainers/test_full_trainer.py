"""The full trainer class, in this process, with the prepared network and few iterations."""

import gzip
import json
from pathlib import Path

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json
from trainer_of import trainer_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.runs.recorder import TooFewSyntheticSamplesError
from nnunet_difftumor.trainers.difftumor import nnUNetTrainerDiffTumor
from nnunet_difftumor.trainers.label_free import nnUNetTrainerDiffTumorLabelFree
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny


def make(dataset, trainer_class=nnUNetTrainerDiffTumor, **options):
    return trainer_of(dataset.preprocessed, trainer_class, initialize=False, **options)


@pytest.mark.slow
def test_full_trainer_runs_an_epoch_and_logs_what_it_made(prepared_phantom, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make(prepared_phantom)
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 3, 1
    trainer.run_training()

    log = Path(trainer.log_file).read_text()
    assert "Synthetic share: " in log and "0.500 asked" in log and "ms per synthetic sample" in log
    assert "Synthetic tumors: hand-crafted" in log
    path = f"{trainer.output_folder}/synthesis_log/epoch_00000_rank_0.jsonl.gz"
    with gzip.open(path, "rt") as file:
        records = [json.loads(line) for line in file]
    assert records and all(record["in_target"] and record["tumors"] for record in records)
    assert all(1 <= record["batch"] <= 3 for record in records)
    for name in (
        "checkpoint_final.pth",
        "difftumor.json",
        "synthetic_samples.png",
        "synthesis_progress.png",
        "report.html",
    ):
        assert (prepared_phantom.results.parent / trainer.output_folder / name).is_file()
    # DiffTumor's paper trains without mirroring; inference must follow.
    assert trainer.inference_allowed_mirroring_axes is None


def test_real_validation_cases_are_those_of_stock_nnunet_and_bases_never_validate(prepared_phantom):
    splits = load_json(str(prepared_phantom.preprocessed / "splits_final.json"))
    for fold, split in enumerate(splits):
        trainer = make(prepared_phantom, fold=fold)
        trainer.initialize()
        train, validation = trainer.do_split()
        assert (train, validation) == (split["train"], split["val"])
        assert not set(validation) & set(split["synthesis_bases"])


def test_fold_all_has_every_real_case_and_no_base(prepared_phantom):
    trainer = make(prepared_phantom, fold="all")
    trainer.initialize()
    train, validation = trainer.do_split()
    assert train == validation == ["phantom_tumor_000", "phantom_tumor_001"]


def test_label_free_holds_out_bases_with_fixed_tumors(prepared_phantom):
    trainer = make(prepared_phantom, nnUNetTrainerDiffTumorLabelFree)
    trainer.initialize()
    roles = trainer.roles()
    assert roles.train == () and not set(roles.validation) & set(roles.bases)
    _, validation = trainer.get_tr_and_val_datasets()
    for case in validation.identifiers:
        labels = validation.load_case(case)[1][:]
        assert set(labels[labels > 0].tolist()) & {2, 4, 6}, f"{case} has no synthetic tumor"


def test_mirroring_left_right_is_the_array_axis_of_the_patients_left_and_right(prepared_phantom, monkeypatch):
    trainer = make(prepared_phantom)
    trainer.initialize()
    monkeypatch.setattr(
        trainer.synthesis,
        "config",
        trainer.synthesis.config.__class__(
            organs=trainer.synthesis.config.organs, mirror_axes=("left-right", "head-foot")
        ),
    )
    *_, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    # The phantom's arrays are (z, y, x).
    assert axes == trainer.inference_allowed_mirroring_axes == (0, 2)


def test_trainer_without_prepare_says_so(prepared_phantom, copy_of_prepared_phantom):
    (copy_of_prepared_phantom / "difftumor.json").unlink()
    with pytest.raises(InputError, match=r"difftumor\.json: not found.*difftumor prepare"):
        make(prepared_phantom).initialize()


def test_wrong_normalization_in_the_plans_is_refused(prepared_phantom):
    def edit(plans):
        plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["ZScoreNormalization"]

    with pytest.raises(InputError, match=r"ZScoreNormalization.*expected \[\"CTNormalization\"\]"):
        make(prepared_phantom, edit_plans=edit).initialize()


def test_no_base_at_all_is_refused(prepared_phantom, copy_of_prepared_phantom):
    path = copy_of_prepared_phantom / "splits_final.json"
    splits = load_json(str(path))
    path.write_text(json.dumps([{**split, "synthesis_bases": [], "label_free_val": []} for split in splits]))
    for trainer_class in (nnUNetTrainerDiffTumor, nnUNetTrainerDiffTumorLabelFree):
        trainer = make(prepared_phantom, trainer_class)
        trainer.initialize()
        with pytest.raises(InputError, match="synthesis_bases is empty"):
            trainer.get_dataloaders()


def test_fold_that_does_not_exist_is_refused(prepared_phantom):
    trainer = make(prepared_phantom, fold=7)
    trainer.initialize()
    with pytest.raises(InputError, match="fold 7 was asked for, but there are folds 0 to 1"):
        trainer.do_split()


def test_run_stops_when_its_samples_are_hardly_ever_synthetic(prepared_phantom, copy_of_prepared_phantom, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    # Statistics that cannot be read: every tumor is refused, counted, and after two epochs the run stops.
    for file in (copy_of_prepared_phantom / "difftumor_statistics").rglob("*.npz"):
        file.write_bytes(b"garbage")
    trainer = make(prepared_phantom, nnUNetTrainerDiffTumorTiny)
    trainer.num_epochs = 5
    with pytest.raises(TooFewSyntheticSamplesError, match=r"less than half.*difftumor prepare"):
        trainer.run_training()
    assert trainer.current_epoch == 1
