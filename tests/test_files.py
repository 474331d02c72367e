"""Outputs appear whole or not at all."""

import os

import pytest

from nnunet_difftumor.files import atomic_path, write_json


def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses to flush others."""
    written = []
    # Writing nothing fails where the handle is for reading only.
    monkeypatch.setattr(os, "fsync", lambda number: written.append(os.write(number, b"")))
    write_json(tmp_path / "new" / "file.json", {"a": 1})
    assert written == [0]
    assert (tmp_path / "new" / "file.json").read_text() == '{\n  "a": 1\n}\n'


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]
