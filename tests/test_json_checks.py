"""JSON files: those that are none, have no end or too much of it are an error like any other."""

import json
import os

import pytest

from nnunet_difftumor import json_checks
from nnunet_difftumor.cli.main import main
from nnunet_difftumor.json_checks import load_json


def test_json_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"name": "Größe", "numbers": [1, 2.5, None]}), encoding="utf-8")
    assert load_json(path) == {"name": "Größe", "numbers": [1, 2.5, None]}


BAD = {
    "cut": b'{"a": ',
    "nested": b"[" * 100_000,
    "no text": b"\xff\xfe\0\1",
    "digits": b"9" * 5000,
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_json_is_a_value_error(tmp_path, name):
    (tmp_path / "a.json").write_bytes(BAD[name])
    with pytest.raises(ValueError):
        load_json(tmp_path / "a.json")


def test_a_pipe_and_a_file_of_gigabytes_are_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="no regular file"):
        load_json(tmp_path / "pipe.json")
    with pytest.raises(IsADirectoryError):
        load_json(tmp_path)
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 1 << 40)
    with pytest.raises(ValueError, match="1099511627776 bytes, expected at most"):
        load_json(tmp_path / "large.json")
    monkeypatch.setattr(json_checks, "_MOST_BYTES", 10)
    (tmp_path / "small.json").write_text("[1, 2]")
    assert load_json(tmp_path / "small.json") == [1, 2]


@pytest.mark.parametrize("name", BAD)
def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path, capsys, name):
    (tmp_path / "manifest.json").write_bytes(BAD[name])
    words = ["synthesize", "ct.nii.gz", "--organ-mask", "organ.nii.gz", "-o", str(tmp_path / "out")]
    assert main([*words, "--from-spec", str(tmp_path / "manifest.json")]) == 2
    said = capsys.readouterr().err
    assert "manifest.json: cannot be read as a manifest" in said and said.count("\n") == 1
