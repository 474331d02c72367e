"""Files that are known by their hash."""

import published_files
import pytest
import seeded

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative import registry
from nnunet_difftumor.generative.published_weights import import_published
from nnunet_difftumor.generative.stages import ORGANS, STAGES
from nnunet_difftumor.generative.weights import file_sha256, read_description


@pytest.fixture
def files(tmp_path, monkeypatch):
    return (
        published_files.write_autoencoder(tmp_path / "AutoencoderModel.ckpt", seeded.autoencoder(), monkeypatch),
        published_files.write_diffusion(
            tmp_path / "model.pt", seeded.unet(), autoencoder=seeded.autoencoder(), steps=4
        ),
    )


def register(monkeypatch, path, **content):
    entry = registry.KnownFile(path.name, "a group", "https://example.org/weights", "CC BY 4.0", **content)
    monkeypatch.setitem(registry.KNOWN_FILES, file_sha256(path), entry)


def test_entries_are_hashes_of_organs_and_stages_that_exist():
    for sha256, known in registry.KNOWN_FILES.items():
        assert len(sha256) == 64 and not set(sha256) - set("0123456789abcdef")
        assert (known.organ is None) == (known.stage is None)
        assert known.organ in (None, *ORGANS) and known.stage in (None, *STAGES)
        assert known.page.endswith(known.name) and known.licence


def test_a_known_file_tells_its_organ_and_its_origin_is_kept(files, tmp_path, monkeypatch, capsys):
    register(monkeypatch, files[1], organ="kidney", stage="early")
    assert main(["import-weights", *map(str, files), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "by its hash: model.pt of a group (https://example.org/weights, CC BY 4.0)" in printed
    assert "by its hash: no published file that this version knows" in printed
    published = read_description(tmp_path / "out" / "kidney_early.safetensors").source["published_as"]
    assert (published["publisher"], published["organ"]) == ("a group", "kidney")
    assert read_description(tmp_path / "out" / "autoencoder.safetensors").source["published_as"] is None


def test_a_name_that_contradicts_the_hash_is_refused_unless_the_organ_is_given(files, tmp_path, monkeypatch):
    wrong = files[1].rename(tmp_path / "liver_early.pt")
    register(monkeypatch, wrong, organ="kidney", stage="early")
    with pytest.raises(InputError, match=r"by its hash, its name says another organ.*--organ"):
        import_published([files[0], wrong], tmp_path / "out")
    assert import_published([wrong], tmp_path / "out", organ="liver")[0].path.name == "liver_early.safetensors"
