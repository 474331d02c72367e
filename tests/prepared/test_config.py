"""difftumor.json: what is written is read again, and what is wrong is named."""

import dataclasses
import json

import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.config import CurriculumStep, DiffTumorConfig
from nnunet_difftumor.prepared.live_settings import LiveSettings
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ import Organ

HALF = {"real": 0.5, "synthetic": 0.5, "healthy": 0.0}
CONFIG = DiffTumorConfig(organs=(Organ("liver", (1,), 2, (2,)), Organ("kidney", (3, 4), 5, (5,))))


def test_a_saved_config_is_read_again(tmp_path):
    config = DiffTumorConfig(
        organs=CONFIG.organs,
        preset="hu2023",
        size_weights={"tiny": 1.0, "small": 2.0},
        contrast_hu=(-40.0, -20.0),
        shares=SampleShares(0.2, 0.7, 0.1),
        real_cases_as_bases=True,
        curriculum=(CurriculumStep(10, {"tiny": 1.0}),),
        handcrafted_share=0.25,
        live=LiveSettings(weights_folder="weights", deterministic=True, ring=0),
        mirror_axes=("left-right",),
        seed=7,
    )
    config.save(tmp_path / "difftumor.json")
    assert DiffTumorConfig.load(tmp_path / "difftumor.json") == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"look_alike_probabilty": 0.5}, "unknown key 'look_alike_probabilty'; did you mean look_alike_probability"),
        ({"look_alike_probability": 1.5}, "look_alike_probability is 1.5, expected a number from 0 to 1"),
        ({"look_alike_probability": True}, "look_alike_probability is true, expected a number"),
        ({"shares": 0.5}, 'shares is 0.5, expected "public_code", or shares that add'),
        ({"shares": "public"}, 'shares is "public", expected "public_code", or shares'),
        ({"shares": {"real": 1, "synthetic": 0}}, "shares: healthy is missing"),
        ({"shares": {**HALF, "synthetic": -0.5}}, "shares: synthetic is -0.5, expected a number from 0 to 1"),
        (
            {"shares": {**HALF, "healthy": 0.2}},
            "shares: real 0.5, synthetic 0.5, healthy 0.2: expected shares from 0 to 1 that add up to 1",
        ),
        (
            {"preset": "real"},
            'preset is "real", expected one of realistic, hu2023, hu2023_spline, hu2023_visual, hu2023_undeformed',
        ),
        ({"size_weights": {"huge": 1}}, "size_weights .*expected null, or shares of tiny, small, medium, large"),
        ({"size_weights": {"tiny": 0}}, "size_weights"),
        ({"contrast_hu": [-20, -40]}, "contrast_hu .*the smaller one first"),
        ({"contrast_hu": -20}, "contrast_hu"),
        ({"source": "disk"}, 'source is "disk", expected one of handcrafted, live, bank'),
        ({"source": "bank"}, "bank_folder is missing"),
        ({"mirror_axes": ["x"]}, "mirror_axes .*left-right, front-back, head-foot"),
        ({"seed": -1}, "seed is -1, expected an integer of at least 0"),
        ({"schema_version": 2}, "schema_version is 2, expected 1"),
        ({"handcrafted_share": 2}, "handcrafted_share is 2, expected a number from 0 to 1"),
        ({"live": {"timeout": 5}}, "live: unknown key 'timeout'; did you mean timeout_s"),
        ({"live": {"timeout_s": 0}}, "live: timeout_s is 0, expected a number above 0, at most 3600"),
        ({"live": {"weights_organs": {"spleen": "../brain"}}}, "weights_organs .*names of organs with that of whose"),
        ({"live": {"ring": 5}}, 'bank_folder is missing; with "ring" above 0'),
        ({"source": "live", "contrast_hu": [-40, -20]}, "contrast_hu: diffusion models decide the contrast"),
        ({"curriculum": [{"from_epoch": 5}]}, r"curriculum\[0\]: size_weights is missing"),
        ({"curriculum": [{"from_epoch": -1, "size_weights": {"tiny": 1}}]}, "from_epoch is -1, expected an integer"),
        (
            {"curriculum": [{"from_epoch": n, "size_weights": {"tiny": 1}} for n in (5, 5)]},
            "not in the order of their from_epoch",
        ),
        ({"minimum_contrast_to_noise": 11}, "minimum_contrast_to_noise is 11, expected null, or a number from 0 to 10"),
        ({"minimum_contrast_to_noise": -0.5}, "minimum_contrast_to_noise is -0.5, expected null"),
        ({"organs": []}, "organs is \\[\\], expected a list with at least one organ"),
        ({"organs": [{"name": "liver", "organ_labels": [1]}]}, r"organs\[0\]: tumor_label is missing"),
        (
            {"organs": [{"name": "liver", "organ_labels": [1], "tumor_label": 1}]},
            "tumor_label 1 is also an organ label",
        ),
        ({"organs": [{"name": "liver", "organ_labels": [0], "tumor_label": 2}]}, "organ_labels is \\[0\\]"),
        ({"organs": [{"name": "a b", "organ_labels": [1], "tumor_label": 2}]}, 'name is "a b"'),
    ],
)
def test_wrong_settings_name_file_and_field(tmp_path, changes, message):
    path = tmp_path / "difftumor.json"
    path.write_text(json.dumps({**CONFIG.to_dict(), **changes}))
    with pytest.raises(InputError, match=message) as error:
        DiffTumorConfig.load(path)
    assert str(path) in str(error.value)


ORGAN = {"name": "liver", "organ_labels": [1], "tumor_label": 2, "avoid_labels": [2]}
WRONG = {
    "list": ["x"],
    "nested_list": [["x"]],
    "list_of_objects": [{"x": 1}],
    "object": {"x": 1},
    "nested_object": {"tiny": [1]},
    "object_of_a_huge_number": {"tiny": 10**400, "small": 0.5},
    "string": "x",
    "number": 3.5,
    "huge_number": 10**400,
    "infinity": float("inf"),
    "true": True,
    "null": None,
}
ALLOWED = {
    "size_weights": ["null"],
    "contrast_hu": ["null"],
    "minimum_contrast_to_noise": ["number", "null"],
    "clear_of_vessels": ["true"],
    "real_cases_as_bases": ["true"],
    "bank_folder": ["string", "null"],
    "weights_folder": ["string", "null"],
    "weights_organs": ["null"],
    "wall_mm": ["number", "null"],
    "sampler_steps": ["huge_number", "null"],
    "batch_size": ["null"],
    "batch_wait_ms": ["number"],
    "timeout_s": ["number"],
    "gpu_memory_gb": ["number", "null"],
    "deterministic": ["true"],
    "ring": ["huge_number"],
    "seed": ["huge_number"],
    "name": ["string"],
    "tumor_label": ["huge_number"],
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(DiffTumorConfig)])
def test_a_value_of_a_wrong_type_names_file_and_key(tmp_path, key, kind):
    path = tmp_path / "difftumor.json"
    path.write_text(json.dumps({**CONFIG.to_dict(), key: WRONG[kind]}))
    if kind in ALLOWED.get(key, ()):
        assert getattr(DiffTumorConfig.load(path), key) == WRONG[kind]
        return
    with pytest.raises(InputError) as error:
        DiffTumorConfig.load(path)
    assert str(error.value).startswith(f"{path}: ") and key in str(error.value)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(LiveSettings)])
def test_a_value_of_a_wrong_type_in_live_names_file_and_key(tmp_path, key, kind):
    path = tmp_path / "difftumor.json"
    path.write_text(json.dumps({**CONFIG.to_dict(), "bank_folder": "bank", "live": {key: WRONG[kind]}}))
    if kind in ALLOWED.get(key, ()):
        assert getattr(DiffTumorConfig.load(path).live, key) == WRONG[kind]
        return
    with pytest.raises(InputError) as error:
        DiffTumorConfig.load(path)
    assert str(error.value).startswith(f"{path}: live: ") and key in str(error.value)


def test_the_mix_of_an_epoch_is_that_of_the_last_step_before_it():
    config = dataclasses.replace(
        CONFIG,
        size_weights={"large": 1},
        curriculum=(CurriculumStep(2, {"tiny": 1}), CurriculumStep(5, {"small": 1, "medium": 0})),
    )
    assert [config.size_weights_in(epoch) for epoch in (0, 1)] == [{"large": 1}] * 2
    assert [config.size_weights_in(epoch) for epoch in (2, 4)] == [{"tiny": 1}] * 2
    assert config.size_weights_in(500) == {"small": 1, "medium": 0}
    assert config.sizes() == {"large", "tiny", "small"}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Organ)])
def test_a_value_of_a_wrong_type_in_an_organ_names_file_and_key(tmp_path, key, kind):
    path = tmp_path / "difftumor.json"
    path.write_text(json.dumps({**CONFIG.to_dict(), "organs": [{**ORGAN, key: WRONG[kind]}]}))
    if kind in ALLOWED.get(key, ()):
        assert getattr(DiffTumorConfig.load(path).organs[0], key) == WRONG[kind]
        return
    with pytest.raises(InputError) as error:
        DiffTumorConfig.load(path)
    assert str(error.value).startswith(f"{path}: organs[0]: {key} is ")


def test_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "difftumor.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        DiffTumorConfig.load(path)


def test_real_tumors_are_avoided_whether_the_file_says_so_or_not():
    record = {"organs": [{"name": "liver", "organ_labels": [1], "tumor_label": 2}]}
    assert DiffTumorConfig.from_dict(record).organs == (Organ("liver", (1,), 2, (2,)),)
