"""Weights of one organ draw in any other, which has weights of its own or none, in banks and in trainings: Tables 2
and 3 of DiffTumor. Nine pairs of liver, kidney and an organ with a new name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_networks
from live_training import make_trainer, write_settings

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.preparation.prepare import prepare
from nnunet_difftumor.runs.synthesis_log import read_log
from nnunet_difftumor.synthesis.networks import view as network_view

pytestmark = pytest.mark.slow(file_seconds=60)

ORGANS = ("liver", "kidney", "gland")
ALL = [pytest.param(shift, marks=[] if shift == 1 else pytest.mark.long) for shift in range(3)]
COMMAND = Path(sys.executable).with_name("difftumor")


@pytest.fixture(scope="module")
def prepared(prepared_phantom, tmp_path_factory) -> Iterator[tuple[Path, Path]]:
    """The phantom with its pancreas under a name that nobody has published weights for: its difftumor.json, and a
    folder of weights. Put back afterwards.
    """
    folder, made = prepared_phantom.preprocessed, tmp_path_factory.mktemp("cross")
    backup = shutil.copytree(folder, made / "backup")
    path = folder / "difftumor.json"
    record = json.loads(path.read_text().replace('"pancreas"', '"gland"'))
    path.write_text(json.dumps(record | {"size_weights": {"tiny": 1.0, "small": 1.0}}))
    said: list[str] = []
    prepare(501, processes=1, report=said.append)
    notes = [line for line in said if "NOTE: organ" in line]
    assert len(notes) == 1 and "organ gland: no shapes or contrast of its own; drawn as in the liver" in notes[0]
    yield path, tiny_networks.write_weights(made / "weights", *(f"{organ}_early" for organ in ORGANS))
    shutil.rmtree(folder)
    shutil.move(backup, folder)


@pytest.fixture
def three_organs(prepared, tmp_path) -> Iterator[Path]:
    """The same for one test, which may change the settings and has its own copy of the weights."""
    path, weights = prepared
    text = path.read_text()
    shutil.copytree(weights, tmp_path / "weights")
    yield path
    path.write_text(text)


def by_another(shift: int) -> dict[str, str]:
    """Whose weights draw, by organ."""
    return {organ: ORGANS[(number + shift) % 3] for number, organ in enumerate(ORGANS)}


@pytest.mark.parametrize("shift", ALL)
def test_a_bank_has_lesions_of_any_organ_by_the_models_of_any(three_organs, tmp_path, capsys, shift):
    chosen, bank = by_another(shift), tmp_path / "bank"
    words = ["synthesize", "--bank", "-d", "501", "--per-case", "2", "-o", bank, "--renderer", "diffusion"]
    words += ["--weights", tmp_path / "weights"]
    if shift:
        words += ["--weights-organ", *(f"{organ}={name}" for organ, name in chosen.items())]
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((bank / "bank.json").read_text())
    assert record["weights_organs"] == chosen
    assert {organ: files[-1]["file"] for organ, files in record["weights"].items()} == {
        organ: f"{name}_early.safetensors" for organ, name in chosen.items()
    }
    for organ, name in chosen.items():
        assert (f"NOTE: organ {organ}: drawn by the diffusion models of {name}" in done.stdout) == (organ != name)

    # The same as difftumor.json says it; and a bank of whose making nothing was said apart.
    record_of_dataset = json.loads(three_organs.read_text())
    record_of_dataset["live"]["weights_organs"] = chosen
    three_organs.write_text(json.dumps(record_of_dataset))
    (bank / "bank.json").write_text(json.dumps({k: v for k, v in record.items() if k != "weights_organs"}))
    assert main([str(word) for word in words[: words.index("--weights") + 2]]) == 0
    assert "0 lesions made" in capsys.readouterr().out
    if shift:
        return
    other = subprocess.run([COMMAND, *words, "--weights-organ", "liver"], capture_output=True, text=True)
    assert other.returncode == 2 and "made with other settings (weights, weights_organs" in other.stderr


@pytest.mark.parametrize("shift", ALL)
def test_a_training_draws_in_any_organ_by_the_models_of_any(three_organs, tmp_path, monkeypatch, shift):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setattr(network_view, "CONTEXT_MM", 4.0)  # small patches, to be quick
    chosen = by_another(shift)
    live = {"timeout_s": 600.0, "weights_organs": chosen if shift else None}
    settings = write_settings(three_organs.parent, tmp_path, live=live)
    three_organs.write_text(settings.read_text())
    trainer = make_trainer(three_organs.parent, settings)
    trainer.num_epochs = 1
    said = []
    trainer.print_to_log_file = lambda *words, **_: said.append(" ".join(map(str, words)))
    trainer.run_training()
    text = "\n".join(said)
    assert "NOTE: organ gland: no shapes or contrast of its own; drawn as in the liver" in text
    for organ, name in chosen.items():
        assert (f"NOTE: organ {organ}: drawn by the diffusion models of {name}" in text) == (organ != name)
    log = Path(trainer.output_folder) / "synthesis_log"
    assert json.loads((log / "run_rank_0.json").read_text())["weights_organs"] == chosen
    samples = list(read_log(trainer.output_folder, rank=0))
    assert {tumor["organ"] for sample in samples for tumor in sample["tumors"]} == set(ORGANS)
    assert all(sample["in_target"] for sample in samples if sample["tumors"])


def test_an_organ_of_which_nothing_is_said_is_refused_with_the_option_that_says_it(three_organs, tmp_path):
    (tmp_path / "weights" / "gland_early.safetensors").unlink()
    words = ["synthesize", "--bank", "-d", "501", "--per-case", "1", "-o", tmp_path / "bank", "--renderer", "diffusion"]
    done = subprocess.run([COMMAND, *words, "--weights", tmp_path / "weights"], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "bank").exists()
    assert done.stderr.endswith(
        "(there: kidney, liver); choose with --weights-organ which organ's models draw in it, for example "
        "--weights-organ gland=liver, or train its own (docs/models.md)\n"
    )
