"""A dataset whose channel is not CT is refused before anything is preprocessed."""

import json
import shutil

from nnunet_difftumor.cli.main import main


def test_dataset_of_another_modality_is_refused(prepared_phantom, nnunet_folders, capsys):
    raw = nnunet_folders / "raw" / "Dataset504_NotCT"
    shutil.copytree(prepared_phantom.raw, raw)
    try:
        record = json.loads((raw / "dataset.json").read_text())
        record["channel_names"] = {"0": "T1"}
        (raw / "dataset.json").write_text(json.dumps(record))
        assert main(["prepare", "-d", "504", "-np", "1"]) == 2
        error = capsys.readouterr().err
        assert "channel_names" in error and 'expected one channel named "CT"' in error
        assert not (nnunet_folders / "preprocessed" / "Dataset504_NotCT" / "difftumor.json").exists()
    finally:
        shutil.rmtree(raw)
        shutil.rmtree(nnunet_folders / "preprocessed" / "Dataset504_NotCT", ignore_errors=True)
