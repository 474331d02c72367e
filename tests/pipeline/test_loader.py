"""Batches through nnU-Net's own get_dataloaders: the same whatever the workers, steered onto tumors, resumable."""

import hashlib
import random

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from trainer_of import trainer_of

from nnunet_difftumor.pipeline.loader import SyntheticTumorDataLoader, WatchedDataLoader
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorLabelFreeTiny


def batches(dataset, *, workers: int, count: int, monkeypatch, epoch: int = 0, **kwargs) -> list[dict]:
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    trainer = trainer_of(dataset.preprocessed, **kwargs)
    trainer.current_epoch = epoch
    training, validation = trainer.get_dataloaders()
    try:
        return [next(training) for _ in range(count)]
    finally:
        for augmenter in (training, validation):
            if workers:
                augmenter._finish()


def digest(batch: dict) -> str:
    parts = [batch["data"], *(batch["target"] if isinstance(batch["target"], list) else [batch["target"]])]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part.numpy()).tobytes() for part in parts)).hexdigest()


@pytest.mark.slow(file_seconds=80)
def test_batches_are_the_same_with_0_1_2_and_4_workers(prepared_phantom, monkeypatch):
    count = 16
    expected = None
    for workers in (0, 1, 2, 4):
        made = batches(prepared_phantom, workers=workers, count=count, monkeypatch=monkeypatch)
        assert [batch["index"] for batch in made] == list(range(1, count + 1))
        digests = {batch["index"]: digest(batch) for batch in made}
        records = [
            {key: value for key, value in sample.items() if key not in ("milliseconds", "waited_ms")}
            for batch in made
            for sample in batch["samples"]
        ]
        expected = expected or (digests, records)
        assert digests == expected[0], f"{workers} workers"
        assert records == expected[1], f"{workers} workers"
    assert len(set(expected[0].values())) == count


def test_a_resumed_run_goes_on_at_the_next_batch(prepared_phantom, monkeypatch):
    per_epoch = 4
    whole = batches(prepared_phantom, workers=0, count=3 * per_epoch, monkeypatch=monkeypatch)
    resumed = batches(prepared_phantom, workers=2, count=per_epoch, monkeypatch=monkeypatch, epoch=2)
    assert [batch["index"] for batch in resumed] == [batch["index"] for batch in whole[2 * per_epoch :]]
    assert [digest(batch) for batch in resumed] == [digest(batch) for batch in whole[2 * per_epoch :]]


def test_folds_and_seeds_see_other_batches(prepared_phantom, monkeypatch):
    first = batches(prepared_phantom, workers=0, count=2, monkeypatch=monkeypatch)
    other = batches(prepared_phantom, workers=0, count=2, monkeypatch=monkeypatch, fold=1)
    assert {digest(batch) for batch in first}.isdisjoint({digest(batch) for batch in other})


def test_global_generators_are_as_before_after_a_batch_in_the_main_process(prepared_phantom, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    training, _ = trainer_of(prepared_phantom.preprocessed).get_dataloaders()
    np.random.seed(1)  # noqa: NPY002
    random.seed(2)
    torch.manual_seed(3)
    expected = np.random.random(), random.random(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(2)
    torch.manual_seed(3)
    next(training)
    assert (np.random.random(), random.random(), torch.rand(1).item()) == expected  # noqa: NPY002


def test_every_synthetic_sample_has_a_tumor_in_its_target(prepared_phantom, monkeypatch):
    made = batches(
        prepared_phantom,
        workers=2,
        count=60,
        monkeypatch=monkeypatch,
        trainer_class=nnUNetTrainerDiffTumorLabelFreeTiny,
    )
    asked = [sample for batch in made for sample in batch["samples"]]
    tumor_labels = {2, 4, 6}
    samples = sum(len(batch["keys"]) for batch in made)
    assert 0.45 < len(asked) / samples < 0.55
    reached = [sample["in_target"] for sample in asked]
    assert np.mean(reached) >= 0.95
    for batch in made:
        synthetic = {sample["sample"]: sample["in_target"] for sample in batch["samples"]}
        for position in range(len(batch["keys"])):
            has_tumor = bool(np.isin(batch["target"][0][position].numpy(), list(tumor_labels)).any())
            assert has_tumor == synthetic.get(position, False)


def test_validation_keeps_the_loader_of_nnunet(prepared_phantom, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    training, validation = trainer_of(prepared_phantom.preprocessed).get_dataloaders()
    assert type(training.data_loader) is SyntheticTumorDataLoader
    assert type(validation.data_loader) is WatchedDataLoader
    assert type(validation.data_loader).generate_train_batch is nnUNetDataLoader.generate_train_batch


def test_stock_trainer_is_untouched_after_ours(prepared_phantom, monkeypatch):
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module  # noqa: N813

    before = module.nnUNetDataLoader, module.NonDetMultiThreadedAugmenter
    batches(prepared_phantom, workers=0, count=1, monkeypatch=monkeypatch)
    assert (module.nnUNetDataLoader, module.NonDetMultiThreadedAugmenter) == before
    loaders = trainer_of(prepared_phantom.preprocessed, nnUNetTrainer).get_dataloaders()
    assert [type(loader.data_loader) for loader in loaders] == [nnUNetDataLoader] * 2
