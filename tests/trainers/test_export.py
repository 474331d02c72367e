"""`difftumor export`: the copy predicts under plain nnU-Net, and nothing in a checkpoint is executed."""

import copy
import json
import os
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from folder_contents import state

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.trainers import export as export_module
from nnunet_difftumor.trainers.export import export, load_checkpoint

DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
RESAMPLING = "resample_data_or_seg_to_shape"
PLANS = {
    "dataset_name": "Dataset999_Toy",
    "plans_name": "nnUNetPlans",
    "continue_training": False,
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 40.0, "std": 60.0, "percentile_00_5": -175.0, "percentile_99_5": 250.0}
    },
    "configurations": {
        "3d_fullres": {
            "data_identifier": "toy",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16, 16],
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "batch_dice": False,
            **{f"resampling_fn_{what}": RESAMPLING for what in ("data", "seg", "probabilities")},
            **{
                f"resampling_fn_{what}_kwargs": {"is_seg": what == "seg", "order": 1, "order_z": 0}
                for what in ("data", "seg", "probabilities")
            },
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [4, 8, 8],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3]] * 3,
                    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                    "n_conv_per_stage": [1, 1, 1],
                    "n_conv_per_stage_decoder": [1, 1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}


@pytest.fixture
def stock_model(tmp_path, monkeypatch):
    """A model folder as nnU-Net's own trainer writes it: after one step, with a log of numpy numbers."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    case = tmp_path / "nnUNet_preprocessed" / "Dataset999_Toy" / "toy" / "case.b2nd"
    case.parent.mkdir(parents=True)
    case.touch()  # nnU-Net infers the storage from the file names

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    trainer = nnUNetTrainer(copy.deepcopy(PLANS), "3d_fullres", 0, DATASET_JSON, torch.device("cpu"))
    trainer.initialize()
    sum(output.mean() for output in trainer.network(torch.randn(2, 1, 16, 16, 16))).backward()
    trainer.optimizer.step()
    trainer.logger.log("train_losses", np.float32(1.5), 0)
    trainer.logger.log("mean_fg_dice", np.nanmean([0.25, 0.5]), 0)
    trainer.logger.log("dice_per_class_or_region", [np.float64(0.25), np.float64(0.5)], 0)
    trainer._best_ema = trainer.logger.get_value("ema_fg_dice", step=-1)

    model = tmp_path / "results" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (model / "fold_0" / "validation").mkdir(parents=True)
    trainer.save_checkpoint(str(model / "fold_0" / "checkpoint_final.pth"))
    for name, content in (("plans", PLANS), ("dataset", DATASET_JSON), ("dataset_fingerprint", {})):
        (model / f"{name}.json").write_text(json.dumps(content))
    (model / "fold_0" / "validation" / "summary.json").write_text("{}")
    (model / "fold_0" / "validation" / "case.nii.gz").touch()
    return model


@pytest.fixture
def model(stock_model):
    """The same, as a trainer of this package would have written it."""
    model = stock_model.with_name("nnUNetTrainerDiffTumor__nnUNetPlans__3d_fullres")
    shutil.copytree(stock_model, model)
    path = model / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=False) | {"trainer_name": "nnUNetTrainerDiffTumor"}, path)
    return model


def predict(model) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,), checkpoint_name="checkpoint_final.pth")
    return predictor.predict_logits_from_preprocessed_data(
        torch.randn((1, 20, 20, 20), generator=torch.Generator().manual_seed(1))
    ).numpy()


def test_exported_model_predicts_under_plain_nnunet_as_the_original_network(model, stock_model, monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    exported = export(model)
    logits = predict(exported)
    assert np.array_equal(logits, predict(stock_model))
    assert logits.std() > 0


def test_exported_folder_holds_what_nnunet_needs_and_no_predictions(model):
    exported = export(model)
    assert exported == model.with_name(f"{model.name}_exported")
    assert {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()} == {
        "plans.json",
        "dataset.json",
        "dataset_fingerprint.json",
        "fold_0/checkpoint_final.pth",
        "fold_0/validation/summary.json",
    }


def test_checkpoint_keeps_everything_but_the_trainers_name(model, tmp_path):
    before = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    after = torch.load(export(model, tmp_path / "out") / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert after.pop("trainer_name") == "nnUNetTrainer"
    assert after.pop("original_trainer_name") == before.pop("trainer_name") == "nnUNetTrainerDiffTumor"
    assert before.keys() == after.keys()
    assert before["logging"] == after["logging"]
    assert before["init_args"] == after["init_args"]
    assert before["_best_ema"] == after["_best_ema"]
    for name, weight in before["network_weights"].items():
        assert torch.equal(weight, after["network_weights"][name])


def test_exporting_an_export_keeps_the_first_name(model, tmp_path):
    twice = export(export(model, tmp_path / "once"), tmp_path / "twice")
    checkpoint = load_checkpoint(twice / "fold_0" / "checkpoint_final.pth")
    assert checkpoint["original_trainer_name"] == "nnUNetTrainerDiffTumor"


def test_a_dry_run_says_files_sizes_and_room_and_writes_nothing(model, tmp_path, capsys):
    command = ["export", str(model), "-o", str(tmp_path / "out")]
    before = state(tmp_path)
    assert main([*command, "--dry-run"]) == 0
    assert state(tmp_path) == before
    said = capsys.readouterr().out
    assert re.search(r"^fold_0/checkpoint_final.pth: [\d.]+ [KM]B$", said, re.M) and "exported to" not in said
    assert re.search(rf"{tmp_path / 'out'} would get these 5 files, [\d.]+ [KM]B; [\d.]+ [GT]B are free", said)
    assert main(command) == 0
    before = state(tmp_path)
    assert main([*command, "--dry-run"]) == 0
    assert state(tmp_path) == before
    assert f"{tmp_path / 'out'}: holds this export; nothing would be done" in capsys.readouterr().out


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["real", "dry"])
def test_dry_and_real_runs_refuse_the_same(model, tmp_path, monkeypatch, capsys, dry_run):
    before = state(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(export_module, "free_bytes", lambda _: 1000)
        assert main(["export", str(model), "-o", str(tmp_path / "out"), *dry_run]) == 2
    assert "but 1 KB are free there; free disk space" in capsys.readouterr().err
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(checkpoint, weights_only=False) | {"trainer_name": "nnUNetTrainerForeign"}, checkpoint)
    after = state(tmp_path)
    assert main(["export", str(model), "-o", str(tmp_path / "out"), *dry_run]) == 2
    assert "was trained by nnUNetTrainerForeign" in capsys.readouterr().err
    (model / "taken").mkdir()
    assert main(["export", str(model), "-o", str(model / "taken"), *dry_run]) == 2
    assert "exists already; remove it" in capsys.readouterr().err
    (model / "taken").rmdir()
    assert {*after} == {*before} == {*state(tmp_path)}


def test_command_says_where_the_copy_is_and_does_not_overwrite(model, tmp_path, capsys):
    command = ["export", str(model), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    # Interrupted when all was done, it says so when it is asked again.
    assert main(command) == 0
    (tmp_path / "out" / "fold_0" / "mine.txt").touch()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_foreign_trainer_is_refused_since_its_network_may_differ(model, tmp_path):
    path = model / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=False) | {"trainer_name": "nnUNetTrainerUMambaBot"}, path)
    with pytest.raises(InputError, match="nnUNetTrainerUMambaBot"):
        export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["plans.json", "notes.json", "fold_0/progress.png", "fold_0/checkpoint_final.pth"])
@pytest.mark.parametrize("kind", ["link", "pipe", "link to nowhere"])
def test_what_is_no_file_of_the_models_own_is_not_copied(model, tmp_path, name, kind):
    secret, path = tmp_path / "secret", model / name
    secret.write_text("{}")
    if path.exists() and kind != "pipe":
        secret.write_bytes(path.read_bytes())
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(secret if kind == "link" else tmp_path / "nothing")
    with pytest.raises(InputError, match=r"is a link or no regular file|there is no plans.json|no fold_"):
        export(model, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_fold_that_is_a_link_is_not_followed(model, tmp_path):
    (model / "fold_0").rename(tmp_path / "elsewhere")
    (model / "fold_0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"fold_0/.* is a link or no regular file"):
        export(model, tmp_path / "copy")


@pytest.mark.parametrize("missing", ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"])
def test_an_incomplete_model_folder_is_refused(model, missing):
    (model / missing).unlink()
    with pytest.raises(InputError, match=model.name):
        export(model)


def test_checkpoints_written_with_numpy_1_are_loaded(model):
    path = model / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"cnumpy.core.multiarray\n" in path.read_bytes()
    assert load_checkpoint(path)["_best_ema"] == 0.375


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_code_in_a_checkpoint_is_not_executed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = model / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=False) | {"extra": Malicious()}, path)
    with pytest.raises(InputError, match=r"checkpoint_final\.pth.*mkdir"):
        export(model)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_checkpoint_is_an_error_that_leaves_nothing(model, size):
    path = model / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"checkpoint_final\.pth"):
        export(model)
    assert [
        folder.name for folder in model.parent.iterdir() if folder.name.startswith((".tmp", f"{model.name}_"))
    ] == []


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_leaves_nothing(model, tmp_path):
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            export(model, tmp_path / "out" / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "out").exists()
