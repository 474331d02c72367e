"""`nnUNetTrainerDiffTumor_on_NAME`: NAME's training with synthetic tumors in its batches, and nothing else changed."""

import inspect
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from foreign_trainers import FOREIGN, write_foreign_trainers
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from trainer_of import trainer_of

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.installation import SHIM_FOLDER
from nnunet_difftumor.pipeline.seeding import seeded_generators
from nnunet_difftumor.pipeline.spatial import QuickSpatialTransform
from nnunet_difftumor.runs.recorder import SynthesisRecorder
from nnunet_difftumor.trainers import LABEL_FREE_ON, ON
from nnunet_difftumor.trainers.composed import composed_trainer
from nnunet_difftumor.trainers.export import export
from nnunet_difftumor.trainers.tiny import shrink_plans

OF_NNUNET = (
    "nnUNetTrainerDA5",
    "nnUNetTrainerNoDA",
    "nnUNetTrainer_DASegOrd0",
    "nnUNetTrainer_onlyMirror01",
    "nnUNetTrainer_warmup",
    "nnUNetTrainerCosAnneal",
    "nnUNetTrainerVanillaAdam",
    "nnUNetTrainerTopk10Loss",
    "nnUNetTrainerBN",
    "nnUNetTrainerNoDeepSupervision",
    "nnUNetTrainer_probabilisticOversampling_033",
)
NAMES = (*OF_NNUNET, FOREIGN)


@pytest.fixture(autouse=True)
def foreign(tmp_path_factory, monkeypatch) -> None:
    """A folder with somebody's trainers, beside ours; batches are made in this process."""
    folder = write_foreign_trainers(tmp_path_factory.mktemp("foreign"))
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(folder), str(SHIM_FOLDER)]))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")


def make(dataset, name: str):
    """A trainer as `nnUNetv2_train -tr` finds it, with a tiny network."""
    found = recursive_find_trainer_class_by_name(name)
    return trainer_of(
        dataset.preprocessed, found, edit_plans=lambda plans: shrink_plans(plans, "3d_fullres", features=(4, 8, 8))
    )


def described(thing):
    """Classes and parameters of a transform, all the way down."""
    if isinstance(thing, list | tuple):
        return [described(part) for part in thing]
    if isinstance(thing, dict):
        return {key: described(value) for key, value in thing.items()}
    if isinstance(thing, np.ndarray | torch.Tensor):
        return np.asarray(thing).tolist()
    if inspect.isroutine(thing) or isinstance(thing, type):
        return thing.__qualname__
    if not hasattr(thing, "__dict__"):
        return thing
    kind = type(thing)
    # Without what it remembers of its use.
    settings = {key: value for key, value in vars(thing).items() if key not in ("_grid_cache", "benchmark_use_fft")}
    if kind is QuickSpatialTransform:
        # It fills with what nnU-Net's later step makes of -1.
        kind = SpatialTransform
        del settings["tumor_labels"]
        assert settings["padding_value_seg"] == 0
        settings["padding_value_seg"] = -1
    return [kind.__qualname__, described(settings)]


@pytest.mark.parametrize("name", NAMES)
def test_transforms_and_mirroring_are_those_of_the_trainer(prepared_phantom, name):
    stock, ours = make(prepared_phantom, name), make(prepared_phantom, ON + name)
    loaders = [[loader.data_loader for loader in trainer.get_dataloaders()] for trainer in (stock, ours)]
    for before, after in zip(*loaders, strict=True):
        assert described(before.transforms) == described(after.transforms)
        assert list(before.patch_size) == list(after.patch_size)
        assert before.oversample_foreground_percent == after.oversample_foreground_percent
        assert before.get_do_oversample.__name__ == after.get_do_oversample.__name__
    assert stock.inference_allowed_mirroring_axes == ours.inference_allowed_mirroring_axes
    # The same bits, whoever resamples.
    data = loaders[1][0].generate_train_batch()
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, 40, 40, 40)).astype(np.float32))
    labels = torch.from_numpy((np.arange(40) // 5).astype(np.int16) * np.ones((1, 40, 40, 40), np.int16))
    assert np.isfinite(np.asarray(data["data"])).all()
    made = []
    for loader in (loaders[0][0], loaders[1][0]):
        without_stopwatch(loader.transforms)
        with seeded_generators((7,)):
            made.append([loader.transforms(image=image.clone(), segmentation=labels.clone()) for _ in range(4)])
    for one, other in zip(*made, strict=True):
        assert torch.equal(one["image"], other["image"])
        for a, b in zip(*(as_list(sample["segmentation"]) for sample in (one, other)), strict=True):
            assert torch.equal(a, b)


def without_stopwatch(transform) -> None:
    """nnU-Net's blur takes whichever of two ways was quicker, which differ in the last bit."""
    if isinstance(transform, GaussianBlurTransform):
        transform.benchmark = False
    for part in (*getattr(transform, "transforms", ()), *filter(None, [getattr(transform, "transform", None)])):
        without_stopwatch(part)


def as_list(target) -> list:
    return list(target) if isinstance(target, list | tuple) else [target]


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_learning_rates_are_those_of_the_trainer(prepared_phantom, name):
    stock, ours = make(prepared_phantom, name), make(prepared_phantom, ON + name)
    # Ours come from the run's seed.
    stock.network.load_state_dict(ours.network.state_dict())
    ours.recorder = SynthesisRecorder.of(
        ours.synthesis, ours.output_folder, rank=0, roles=ours.roles(), batches_per_epoch=10
    )
    loader = ours.get_dataloaders()[0].data_loader
    assert (stock.num_epochs, stock.num_iterations_per_epoch) == (ours.num_epochs, ours.num_iterations_per_epoch)
    assert type(stock.optimizer) is type(ours.optimizer)
    seen = []
    for batch in [loader.make_batch(number) for number in range(1, 11)]:
        found = []
        for trainer in (stock, ours):
            trainer.on_train_epoch_start()
            loss = float(trainer.train_step(dict(batch))["loss"])
            found.append((loss, [group["lr"] for group in trainer.optimizer.param_groups]))
            trainer.current_epoch += 1
        assert found[0] == found[1]
        seen.append(found[0][0])
    assert len(set(seen)) == 10


def predicted(model: Path, image: np.ndarray, spacing) -> np.ndarray:
    predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), ("0",), "checkpoint_final.pth")
    return predictor.predict_single_npy_array(image, {"spacing": spacing}, None, None, True)[1]


def run(trainer, *, epochs: int) -> None:
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = epochs, 2, 1
    trainer.run_training()


# Somebody's own trainer, nnUNetTrainerShortBN, goes through every command in test_composed_commands.py.
IN_CI = "nnUNetTrainerDA5"


@pytest.mark.slow(file_seconds=80)
@pytest.mark.parametrize(
    "name", [name if name == IN_CI else pytest.param(name, marks=pytest.mark.long) for name in NAMES]
)
def test_a_composed_training_from_its_start_to_the_exported_model(
    prepared_phantom, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    trainer = make(prepared_phantom, ON + name)
    assert type(trainer).__name__ == ON + name
    assert pickle.loads(pickle.dumps(type(trainer))) is type(trainer)
    run(trainer, epochs=2)
    # A resumed run: nnUNetv2_train --c. nnU-Net's warm-up by itself can load neither a file nor a checkpoint.
    resumed = trainer
    if name != "nnUNetTrainer_warmup":
        resumed = make(prepared_phantom, ON + name)
        resumed.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    assert resumed.current_epoch == 2
    run(resumed, epochs=3)
    resumed.perform_actual_validation(False)
    summary = load_json(f"{resumed.output_folder}/validation/summary.json")
    assert len(summary["metric_per_case"]) == 1
    log = "".join(path.read_text() for path in Path(resumed.output_folder).glob("training_log_*.txt"))
    assert log.count("Synthetic share: ") == 3
    # Prediction, and the same by plain nnU-Net.
    model = Path(resumed.output_folder).parent
    image = np.random.default_rng(0).normal(0, 1, (1, 40, 40, 40)).astype(np.float32)
    expected = predicted(model, image, (4.0, 3.0, 3.0))
    assert expected.std(0).max() > 0
    capsys.readouterr()
    exported = export(model, tmp_path / "exported")
    said = capsys.readouterr().out
    checkpoint = torch.load(exported / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert (checkpoint["trainer_name"], checkpoint["original_trainer_name"]) == (name, ON + name)
    if name == FOREIGN:
        assert f"needs the trainer {FOREIGN}, which is in the module foreign_module" in said
    else:
        monkeypatch.delenv("nnUNet_extTrainer")
        assert said == ""
    assert np.array_equal(predicted(exported, image, (4.0, 3.0, 3.0)), expected)


def test_label_free_on_any_trainer(prepared_phantom):
    trainer = make(prepared_phantom, LABEL_FREE_ON + "nnUNetTrainerVanillaAdam")
    assert trainer.roles().train == () and isinstance(trainer.optimizer, torch.optim.Adam)


def test_settings_that_name_axes_decide_the_mirroring(prepared_phantom, copy_of_prepared_phantom):
    path = copy_of_prepared_phantom / "difftumor.json"
    path.write_text(path.read_text().replace('"mirror_axes": []', '"mirror_axes": ["head-foot"]'))
    trainer = make(prepared_phantom, ON + "nnUNetTrainerDA5")
    trainer.get_dataloaders()
    assert trainer.inference_allowed_mirroring_axes == (0,)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nnUNetTrainerDA6", "'nnUNetTrainerDA6': nnU-Net does not know it, .*the nearest: nnUNetTrainerDA5"),
        ("nnUNetTrainerForeigner", "does not know it, .*nnUNetTrainerForeign"),
        ("nnUNetTrainer__mine", "has '__' in its name, at which nnU-Net splits"),
        ("nnUNetTrainerDiffTumor", "nnUNetTrainerDiffTumor: has synthetic tumors already"),
        (ON + "nnUNetTrainerDA5", "has synthetic tumors already"),
        ("nnUNetTrainerForeignSplit", "nnUNetTrainerForeignSplit: has its own do_split, by which it chooses cases"),
        ("nnUNetTrainerForeignData", "nnUNetTrainerForeignData: has its own get_tr_and_val_datasets"),
        ("nnUNetTrainerForeignArguments", "__init__ takes plans, configuration, fold, dataset_json, unpack, device"),
    ],
)
def test_what_cannot_be_composed_is_refused(name, expected):
    with pytest.raises(InputError, match=expected):
        recursive_find_trainer_class_by_name(ON + name)


def test_a_loader_of_its_own_is_refused_when_the_training_begins(prepared_phantom):
    trainer = make(prepared_phantom, ON + "nnUNetTrainerForeignLoader")
    with pytest.raises(InputError, match="nnUNetTrainerDiffTumor_on_nnUNetTrainerForeignLoader: the get_dataloaders"):
        trainer.get_dataloaders()


def test_a_class_is_made_once(prepared_phantom):
    assert composed_trainer(ON + "nnUNetTrainerDA5") is composed_trainer(ON + "nnUNetTrainerDA5")
    assert composed_trainer(ON + FOREIGN).__module__ in sys.modules
