import dataclasses
import json

import pytest
from hypothesis import given
from tumors import spec, specs

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.spec import TumorSpec


@given(tumor=specs())
def test_a_spec_survives_json_exactly(tumor):
    assert TumorSpec.from_dict(json.loads(json.dumps(tumor.to_dict(), allow_nan=False))) == tumor


def test_the_record_names_every_field():
    assert set(spec().to_dict()) == {field.name for field in dataclasses.fields(TumorSpec)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 3}, "schema_version is 3, this version reads 1 and 2"),
        ({"schema_version": True}, "schema_version is True, this version reads"),
        ({"growth_radius_mm": -1.0}, "growth_radius_mm is -1.0, expected 0 to 50"),
        ({"capsule_mm": 51.0}, "capsule_mm is 51.0, expected 0 to 50"),
        ({"centre_mm": [1.0, 2.0]}, r"centre_mm is \(1.0, 2.0\), expected three numbers within -10000 to 10000"),
        ({"centre_mm": [1e300, 0, 0]}, "centre_mm is .*, expected three numbers within"),
        ({"rotation": [1.0, 0.0, 0.0]}, "rotation is .*, expected a unit quaternion"),
        ({"rotation": [1.0, 1.0, 0.0, 0.0]}, "unit quaternion"),
        ({"semi_axes_mm": [8.0, 0.0, 8.0]}, "semi_axes_mm is .*, expected three numbers from 0.1 to 200"),
        ({"semi_axes_mm": [8.0, 5000.0, 8.0]}, "semi_axes_mm is .*, expected three numbers from 0.1 to 200"),
        ({"edge_blur_mm": 0.0}, "edge_blur_mm is 0.0, expected 0.001 to 50"),
        ({"deformation_mm": -1.0}, "deformation_mm is -1.0, expected 0 to 50"),
        ({"kind": "abscess"}, "kind is 'abscess', expected one of tumor, cyst, haemangioma"),
        ({"kind": ["tumor"]}, "kind is .*, expected one of tumor"),
        ({"roughness": 0.6}, "roughness is 0.6, expected 0 to 0.5"),
        ({"roughness": 0.1, "roughness_grain_mm": 0.05}, "roughness_grain_mm is 0.05, expected at least 1/100"),
        ({"mass_effect": 1.0}, "mass_effect is 1.0, expected 0 to 0.9"),
        ({"mass_effect_radius_mm": 1e9}, "mass_effect_radius_mm is 1000000000.0, expected 0 to 400"),
        ({"noise_correlation": [0.0, 2.0, 0.0]}, "noise_correlation is .*, expected three numbers within -1 to 1"),
        ({"texture_grain_mm": 0.0}, "texture_grain_mm is 0.0, expected 0.01 to 200"),
        ({"contrast_hu": float("nan")}, "contrast_hu is nan, expected -10000 to 10000"),
        ({"background_hu": 10**400}, r"background_hu is 1000000.*\(401 characters\), expected"),
        ({"contrast_hu": True}, "contrast_hu is True, expected"),
        ({"centre_mm": [1.0, float("inf"), 2.0]}, "centre_mm is .*inf.*, expected"),
        ({"semi_axes_mm": "wide"}, "semi_axes_mm is 'wide', expected"),
        ({"semi_axes_mm": [8.0, "8", 8.0]}, "semi_axes_mm is .*'8'.*, expected"),
        ({"deformation_mm": None}, "deformation_mm is None, expected"),
        ({"deformation_mm": [1.0]}, "deformation_mm is .*, expected"),
        ({"centre_mm": 4.0}, "centre_mm is 4.0, expected"),
        ({"seed": -1}, "seed is -1, expected a whole number of at least 0, below 2\\^128"),
        ({"seed": 1 << 128}, "seed is .*, expected a whole number"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"seed": True}, "seed is True, expected a whole number"),
        ({"exophytic": "yes"}, "exophytic is 'yes', expected true or false"),
        ({"organ": 3}, "organ is 3, expected text"),
        ({"organ": "l" * 201}, "organ is .*, expected text of at most 200 characters"),
        ({"colour": "red"}, r"unknown keys \['colour'\]"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(changes, message):
    with pytest.raises(InputError, match=message):
        TumorSpec.from_dict(spec().to_dict() | changes)


@pytest.mark.parametrize("name", ["seed", "organ", "semi_axes_mm", "background_hu"])
def test_a_missing_key_is_named(name):
    record = spec().to_dict()
    del record[name]
    with pytest.raises(InputError, match=rf"missing keys \['{name}'\]"):
        TumorSpec.from_dict(record)


@pytest.mark.parametrize("record", [None, 3, "spec", [1, 2]])
def test_what_is_no_record_is_refused(record):
    with pytest.raises(InputError, match="expected names with values"):
        TumorSpec.from_dict(record)
