"""The account of synthetic samples: shares, sizes, reasons, and when it stops a run."""

import pytest
from synthetic_runs import batch, recorder

from nnunet_difftumor import picture_style
from nnunet_difftumor.runs.recorder import TooFewSyntheticSamplesError
from nnunet_difftumor.runs.synthesis_log import read_log


def test_epoch_lines_give_shares_sizes_times_and_reasons(tmp_path):
    account = recorder(tmp_path)
    account.add(batch(1, in_target=True), epoch=0)
    account.add(batch(2, in_target=False, refused=("large: no room",)), epoch=0)
    account.add(batch(3, in_target=True, refused=("large: no room", "tiny: a vessel is in the way")), epoch=0)
    share, samples, tumors, refused = account.finish_epoch(0)
    assert "0.333 achieved, 0.500 asked" in share and "3 of 6 samples were drawn" in share
    assert samples == "Samples: real 0.500 (0.500 asked), synthetic 0.500 (0.500 asked), healthy 0.000 (0.000 asked)"
    assert "2 tiny, 2 small" in tumors and "20 ms per synthetic sample (most 30)" in tumors
    assert refused == "Refused: 2 x large: no room; 1 x tiny: a vessel is in the way"


def test_log_is_read_again_in_order(tmp_path):
    account = recorder(tmp_path)
    for epoch in range(2):
        for index in (1, 2):
            account.add(batch(2 * epoch + index, in_target=True), epoch=0)
        account.finish_epoch(epoch)
    assert [record["batch"] for record in read_log(tmp_path, 0)] == [1, 2, 3, 4]
    assert list(read_log(tmp_path, 1)) == []


def test_first_batch_with_a_tumor_is_drawn_once(tmp_path):
    account = recorder(tmp_path)
    account.add(batch(1, in_target=False), epoch=0)
    picture = tmp_path / "synthetic_samples.png"
    assert not picture.exists()
    account.add(batch(2, in_target=True), epoch=0)
    drawn = picture.read_bytes()
    account.add(batch(3, in_target=True), epoch=0)
    assert picture.read_bytes() == drawn and drawn.startswith(b"\x89PNG")


def test_the_picture_names_its_planes_and_the_window(tmp_path, monkeypatch):
    said, write = [], picture_style.write
    monkeypatch.setattr(picture_style, "write", lambda *where, **more: said.append(where[3]) or write(*where, **more))
    account = recorder(tmp_path)
    account.add(batch(2, in_target=True), epoch=0)
    assert {"b, batch 2", "axial, slice 4 of 8", "coronal, slice 4 of 8", "sagittal, slice 4 of 8"} <= set(said)
    assert any("window -175 to 250 HU" in text for text in said)
    assert any("no sides are marked" in text for text in said)
    sides = recorder(tmp_path / "unknown", direction=lambda case: None)
    said.clear()
    sides.add(batch(2, in_target=True), epoch=0)
    assert {"axis 0, slice 4 of 8", "axis 1, slice 4 of 8", "axis 2, slice 4 of 8"} <= set(said)
    assert not any("axial" in text for text in said)


def test_run_stops_after_two_poor_epochs_in_a_row(tmp_path):
    account = recorder(tmp_path)
    for epoch, good in enumerate((False, True, False)):
        account.add(batch(epoch, in_target=good, refused=() if good else ("tiny: no room",)), epoch=0)
        account.finish_epoch(epoch)
    account.add(batch(3, in_target=False, refused=("tiny: no room",)), epoch=0)
    with pytest.raises(TooFewSyntheticSamplesError, match="tiny: no room"):
        account.finish_epoch(3)


def test_tumors_that_nobody_could_see_are_counted(tmp_path):
    account = recorder(tmp_path)
    account.add(batch(1, in_target=True, faint=2), epoch=0)
    account.add(batch(2, in_target=True), epoch=0)
    account.add(batch(3, in_target=True, faint=1), epoch=0)
    lines = account.finish_epoch(0)
    assert any(line.startswith("Synthetic tumors: 3 tiny, 3 small; 3 of them hardly to be seen") for line in lines)
    account.add(batch(4, in_target=True), epoch=0)
    assert not any("hardly" in line for line in account.finish_epoch(1))


def test_epochs_of_an_earlier_run_in_the_folder_are_not_of_this_one(tmp_path, monkeypatch):
    for minute, first, epochs in ((1, 1, 3), (2, 11, 1)):
        monkeypatch.setattr("time.strftime", lambda _, minute=minute: f"2026-01-01 00:{minute:02}:00")
        account = recorder(tmp_path)
        for epoch in range(epochs):
            account.add(batch(first + epoch, in_target=True), epoch=0)
            account.finish_epoch(epoch)
    assert [record["batch"] for record in read_log(tmp_path, 0)] == [11]
