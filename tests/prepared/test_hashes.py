"""What is remembered of files."""

import json

from nnunet_difftumor.prepared.made_from.hashes import FileHashes


def test_a_file_that_is_gone_is_forgotten_even_if_nothing_else_was_read(tmp_path):
    for name in ("stays", "goes"):
        (tmp_path / name).write_text(name)
    hashes = FileHashes(tmp_path / "hashes.json", root=tmp_path)
    for name in ("stays", "goes"):
        hashes.sha256(tmp_path / name)
    hashes.save()
    (tmp_path / "goes").unlink()
    FileHashes(tmp_path / "hashes.json", root=tmp_path).save()
    assert list(json.loads((tmp_path / "hashes.json").read_text())) == ["stays"]
