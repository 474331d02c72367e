"""Training samples of real CT, in one file so that the CTs are prepared once."""

import json

import numpy as np
import pytest
from PIL import Image
from trainer_of import trainer_of

from nnunet_difftumor.cli.main import main


@pytest.mark.slow(file_seconds=80)
def test_achieved_share_is_at_least_095_of_that_asked(prepared_real, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    training, validation = trainer_of(prepared_real.preprocessed).get_dataloaders()
    try:
        made = [next(training) for _ in range(120)]
    finally:
        for augmenter in (training, validation):
            augmenter._finish()
    asked = [sample for batch in made for sample in batch["samples"]]
    assert len(asked) >= 90
    assert np.mean([sample["in_target"] for sample in asked]) >= 0.95


@pytest.mark.slow
def test_preview_shows_the_liver(prepared_real, tmp_path):
    assert main(["preview", "-d", str(prepared_real.dataset_id), "-o", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "preview.json").read_text())
    assert set(record["pictures"]) == {"liver", "mix"}
    assert record["samples_without_tumor"] == 0
    with Image.open(tmp_path / "liver.png") as image:
        assert np.asarray(image.convert("L")).std() > 20
