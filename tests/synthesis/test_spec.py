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
        ({"schema_version": 2}, "schema_version is 2, this version reads 1"),
        ({"centre_mm": [1.0, 2.0]}, "centre_mm has 2 numbers, expected 3"),
        ({"rotation": [1.0, 0.0, 0.0]}, "rotation has 3 numbers, expected 4"),
        ({"rotation": [1.0, 1.0, 0.0, 0.0]}, "unit quaternion"),
        ({"semi_axes_mm": [8.0, 0.0, 8.0]}, "semi_axes_mm is .*, expected values above 0"),
        ({"edge_blur_mm": 0.0}, "edge_blur_mm is 0.0, expected values above 0"),
        ({"deformation_mm": -1.0}, "deformation_mm is -1.0, expected a value of at least 0"),
        ({"kind": "abscess"}, "kind is 'abscess', expected one of tumor, cyst, haemangioma"),
        ({"roughness": 0.6}, "roughness is 0.6, expected 0 to 0.5"),
        ({"mass_effect": 1.0}, "mass_effect is 1.0, expected 0 to 0.9"),
        ({"noise_correlation": [0.0, 2.0, 0.0]}, "noise_correlation is .*, expected three values within -1 to 1"),
        ({"texture_grain_mm": 0.0}, "texture_grain_mm is 0.0, expected values above 0"),
        ({"contrast_hu": float("nan")}, "finite"),
        ({"centre_mm": [1.0, float("inf"), 2.0]}, "finite"),
        ({"semi_axes_mm": "wide"}, "semi_axes_mm has 4 numbers|wrong type"),
        ({"semi_axes_mm": [8.0, "8", 8.0]}, "wrong type"),
        ({"deformation_mm": None}, "wrong type"),
        ({"centre_mm": 4.0}, "wrong type"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"organ": 3}, "must be text"),
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
