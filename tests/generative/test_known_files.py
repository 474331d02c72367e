"""Files that are known by their hash."""

import json

import published_files
import pytest
import seeded
import tiny_networks

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative import registry
from nnunet_difftumor.generative.importing.published_weights import import_weights
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS, STAGES
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
        assert known.organ in (None, *PUBLISHED_ORGANS) and known.stage in (None, *STAGES)
        assert known.page.startswith("https://") and known.name in known.page and known.licence


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
    with pytest.raises(InputError, match=r"by its hash, its name says another organ.*`organ`"):
        import_weights([files[0], wrong], tmp_path / "out")
    assert import_weights([wrong], tmp_path / "out", organ="liver")[0].path.name == "liver_early.safetensors"


def test_safetensors_of_others_are_checked_copied_and_named(tmp_path, monkeypatch, capsys):
    theirs = tiny_networks.write_weights(tmp_path / "theirs", "liver_early")
    for name in ("autoencoder", "liver_early"):
        (theirs / f"{name}.safetensors").rename(theirs / f"group_{name}.safetensors")
        (theirs / f"{name}.json").rename(theirs / f"group_{name}.json")
    model, autoencoder = (theirs / f"group_{name}.safetensors" for name in ("liver_early", "autoencoder"))
    register(monkeypatch, model, organ="liver", stage="early")
    out = tmp_path / "out"
    assert main(["import-weights", str(model), str(autoencoder), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "by its hash: group_liver_early.safetensors of a group (https://example.org/weights, CC BY 4.0)" in printed
    assert printed.count("by its hash: no published file that this version knows") == 1
    for path, name in ((model, "liver_early"), (autoencoder, "autoencoder")):
        for suffix in (".safetensors", ".json"):
            assert (out / f"{name}{suffix}").read_bytes() == path.with_suffix(suffix).read_bytes()
    # Again, from the folder itself.
    assert main(["import-weights", str(out / "liver_early.safetensors"), "-o", str(out)]) == 0
    assert file_sha256(out / "liver_early.safetensors") == file_sha256(model)


def test_safetensors_that_are_damaged_or_mislabelled_are_refused(tmp_path, monkeypatch):
    theirs = tiny_networks.write_weights(tmp_path / "theirs", "liver_early")
    autoencoder, model = theirs / "autoencoder.safetensors", theirs / "liver_early.safetensors"
    out = tmp_path / "out"
    with pytest.raises(InputError, match="give the autoencoder"):
        import_weights([model], out)
    with pytest.raises(InputError, match="leave `organ` and `stage` out"):
        import_weights([autoencoder, model], out, organ="kidney")
    page = model.with_suffix(".json")
    content = json.loads(page.read_text())
    content["diffusion"]["organ"] = "kidney"
    page.write_text(json.dumps(content))
    with monkeypatch.context() as patched:
        register(patched, model, organ="liver", stage="early")
        with pytest.raises(InputError, match=r"by its hash, but its JSON says \('kidney', 'early'\)"):
            import_weights([model], out)
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(InputError, match="not the file that its JSON describes"):
        import_weights([model], out)
    page.unlink()
    with pytest.raises(InputError, match="it belongs beside"):
        import_weights([model], out)
    assert sorted(path.name for path in out.iterdir()) == ["autoencoder.json", "autoencoder.safetensors"]


def test_a_file_is_named_by_its_own_hash_or_that_of_the_file_it_was_imported_from(monkeypatch):
    entry = registry.KnownFile("a.safetensors", "a group", "https://example.org/a.safetensors", "CC BY 4.0")
    monkeypatch.setitem(registry.KNOWN_FILES, "ab" * 32, entry)
    expected = {"name": "a.safetensors", "publisher": "a group", "organ": None}
    for sha256, source in (("AB" * 32, {}), ("cd" * 32, {"imported_sha256": "ab" * 32, "published_as": None})):
        assert expected.items() <= registry.published_as(sha256, source).items()
    assert registry.published_as("cd" * 32, {}) is None
    assert registry.published_as("cd" * 32, {"published_as": {"name": "older"}}) == {"name": "older"}
