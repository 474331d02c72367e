"""Preset, file and command line: which overrides which, and what is refused."""

import dataclasses
import json

import pytest
import yaml
from pages import REPOSITORY

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig, check_patch
from nnunet_difftumor.generative.networks.unet import UNetConfig
from nnunet_difftumor.generative.training.settings import (
    PRESETS,
    AutoencoderTrainingSettings,
    DiffusionTrainingSettings,
    check_unchanged,
    preset,
    resolve,
)


def resolved(**more):
    return resolve(AutoencoderTrainingSettings, preset_name="tiny", **more)


def test_options_override_assignments_those_the_file_and_the_file_the_preset(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 7\nseed: 8\nbatch_size: 9\nlearning_rate: 1e-4\n")
    given = {"assignments": ["seed=10", "batch_size=11"], "options": {"batch_size": 12, "steps": None}}
    settings = resolved(settings=file, **given)
    assert settings == resolved(settings=yaml.safe_load(file.read_text()), **given)
    assert (settings.steps, settings.seed, settings.batch_size) == (7, 10, 12)
    assert settings.learning_rate == 1e-4
    assert settings.codes == preset(AutoencoderTrainingSettings, "tiny").codes


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=3", "`assignments` step=3: unknown key 'step'; did you mean steps?"),
        ("steps=0", "steps is 0, expected a whole number of at least 1"),
        ("steps=1.5", "steps is 1.5, expected a whole number"),
        ("learning_rate=fast", 'learning_rate is "fast", expected a number from 1e-09 to 1'),
        ("patch_size=[32, 32]", r"patch_size is \[32, 32\], expected 3 whole numbers of at least 8"),
        ("precision=16", "precision is 16, expected one of 32, bf16"),
        ("betas=[0.9, 1]", "betas is .*expected two numbers from 0 to below 1"),
        ("adversarial_loss=wasserstein", "expected one of hinge, log"),
        ("training_cases=liver_1", "expected a list of case names"),
        ("steps", "expected key=value"),
        ("steps: [", "expected key=value"),
        ("steps=[", "not YAML"),
        ("steps=2026-11-28", 'steps is "2026-11-28", expected a whole number'),
        ("gradient_clip=.inf", "gradient_clip is Infinity, expected a number of at least 0"),
        (f"learning_rate=1{'0' * 400}", "expected a number from 1e-09 to 1"),
    ],
)
def test_wrong_settings_name_key_value_and_what_is_allowed(assignment, message):
    with pytest.raises(InputError, match=message):
        resolved(assignments=[assignment])


def test_arguments_are_named_so_that_the_command_line_can_name_its_options():
    with pytest.raises(InputError, match=r"^`batch_size`: batch_size is 0, expected a whole number of at least 1$"):
        resolved(options={"batch_size": 0})
    with pytest.raises(InputError, match=r"^`settings`: unknown key 'batch'; did you mean batch_size\?"):
        resolved(settings={"batch": 2})


def test_files_that_are_no_settings_are_explained(tmp_path):
    file = tmp_path / "settings.yaml"
    with pytest.raises(InputError, match=r"settings\.yaml: cannot be read"):
        resolved(settings=file)
    file.write_text("- steps\n")
    with pytest.raises(InputError, match="expected lines of `key: value`, got list"):
        resolved(settings=file)
    with pytest.raises(InputError, match="preset 'huge': expected one of paper, code, tiny"):
        resolve(DiffusionTrainingSettings, preset_name="huge")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_their_networks_possible(name):
    for kind in (AutoencoderTrainingSettings, DiffusionTrainingSettings):
        values = vars(preset(kind, name))
        for field in dataclasses.fields(kind):
            assert field.metadata["good"](values[field.name]), field.name
    first = vars(preset(AutoencoderTrainingSettings, name))
    names = {field.name for field in dataclasses.fields(AutoencoderConfig)}
    config = Autoencoder(AutoencoderConfig(**{key: first[key] for key in names & set(first)})).config
    check_patch(first["patch_size"], config.downsampling)
    second = vars(preset(DiffusionTrainingSettings, name))
    names = {field.name for field in dataclasses.fields(UNetConfig)}
    unet = UNetConfig(**{key: second[key] for key in names & set(second)})
    factor = 4 * 2 ** (len(unet.multipliers) - 1)
    check_patch(second["patch_size"], (4, factor, factor))


def test_only_what_leaves_the_steps_alone_may_change_when_a_run_resumes():
    settings = resolved()
    stored = json.loads(json.dumps(vars(settings)))
    check_unchanged(stored, dataclasses.replace(settings, steps=9, workers=3, checkpoint_every=4), where="run")
    with pytest.raises(InputError, match=r"run: .*learning_rate was 0\.0003, now 0\.5.*steps.* may change"):
        check_unchanged(stored, dataclasses.replace(settings, learning_rate=0.5), where="run")


def shown(value) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def test_page_has_every_setting_of_every_preset():
    kinds = (AutoencoderTrainingSettings, DiffusionTrainingSettings)
    expected = {}
    for field in {field.name: field for kind in kinds for field in dataclasses.fields(kind)}:
        having = [kind for kind in kinds if field in {entry.name for entry in dataclasses.fields(kind)}]
        columns = []
        for name in PRESETS:
            values = [shown(getattr(preset(kind, name), field)) for kind in having]
            columns.append("; ".join(dict.fromkeys(values)))
        expected[field] = columns
    page = (REPOSITORY / "docs" / "train_generative.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    found = {row[0].strip("`"): row[1:4] for row in rows if len(row) == 5}
    # norm_groups is a setting of both networks, each with a row in its own table.
    assert {key: value for key, value in found.items() if key != "norm_groups"} == {
        key: value for key, value in expected.items() if key != "norm_groups"
    }
    assert page.count("| `norm_groups` |") == 2
