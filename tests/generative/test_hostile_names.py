"""Names in the JSON beside weights become names of files: none of them may lead out of the output folder."""

import json

import pytest
from tiny_networks import write_weights

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.weights_folder import diffusion_file

HOSTILE = {
    "absolute": "{outside}/splits_final",
    "upwards": "../outside/splits_final",
    "empty": "",
    "null": None,
    "number": 7,
    "nul": "liver\0",
    "long": "a" * 400,
}


@pytest.fixture
def imported(tmp_path):
    """A stranger's pair, an output folder that holds the same autoencoder, and a folder that nothing may touch."""
    theirs, out, outside = (tmp_path / name for name in ("theirs", "out", "outside"))
    outside.mkdir()
    for suffix in ("json", "safetensors"):
        (outside / f"splits_final_early.{suffix}").write_text("precious")
        (outside / f"splits_final.{suffix}").write_text("precious")
    write_weights(theirs, "liver_early")
    assert main(["import-weights", str(theirs / "autoencoder.safetensors"), "-o", str(out)]) == 0
    return theirs, out, outside


@pytest.mark.parametrize("key", ["organ", "stage"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_and_nothing_outside_changes(imported, tmp_path, capsys, key, name):
    theirs, out, outside = imported
    value = HOSTILE[name]
    value = value.format(outside=outside) if isinstance(value, str) else value
    page = theirs / "liver_early.json"
    record = json.loads(page.read_text())
    record["diffusion"][key] = value
    page.write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["import-weights", str(theirs / "liver_early.safetensors"), "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"liver_early.json: {key} is " in error
    assert len(error) < 500
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_sound_names_still_import(imported, capsys):
    theirs, out, _ = imported
    assert main(["import-weights", str(theirs / "liver_early.safetensors"), "-o", str(out)]) == 0
    assert (out / "liver_early.safetensors").is_file()


@pytest.mark.parametrize("organ", ["../liver", "/liver", "", "a/b", "a\\b", ".", "..", "-liver", "liver\n", None, 7])
def test_no_file_of_weights_gets_such_a_name(organ):
    with pytest.raises(InputError, match="expected a plain name"):
        diffusion_file(organ, "early")
