"""A healthy pool of real CT is a dataset of its own: it is prepared and trained on without any annotated tumor."""

import json

import nibabel as nib
import numpy as np
import pytest
from trainer_of import trainer_of

from nnunet_difftumor.dataset_conversion.healthy import convert
from nnunet_difftumor.preparation.prepare import prepare
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorLabelFreeTiny


@pytest.mark.slow
def test_a_pool_of_two_real_scans_trains_label_free(
    tmp_path, nnunet_folders, totalsegmentator_like, test_data, monkeypatch
):
    totalsegmentator_like(tmp_path / "pool" / "abdomen")
    chaos = tmp_path / "pool" / "chaos"
    (chaos / "segmentations").mkdir(parents=True)
    for stored, name in (("ct", "ct"), ("labels", "segmentations/liver")):
        half = nib.load(test_data / "liver_healthy" / f"{stored}.nii.gz").slicer[::2, ::2]
        half.to_filename(chaos / f"{name}.nii.gz")
    raw = convert(tmp_path / "pool", 531, organs={"liver": None}, margin_mm=20)
    # The scans were stored in different orientations.
    codes = {nib.aff2axcodes(nib.load(path).affine) for path in (raw / "imagesTr").iterdir()}
    assert len(codes) == 2

    folder = prepare(531, spacing_mm=(4, 3, 3), patch_size=(32, 32, 32), processes=1).parent
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 2
    for split in splits:
        assert split["train"] == split["val"] == []
        assert split["synthesis_bases"] == ["abdomen", "chaos"] and len(split["label_free_val"]) == 1
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = trainer_of(folder, nnUNetTrainerDiffTumorLabelFreeTiny)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    assert {1, 2} <= set(np.unique(batch["target"][0]).tolist())
    assert np.isfinite(trainer.train_step(batch)["loss"])
