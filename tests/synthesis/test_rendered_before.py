"""Tumors of specs that an earlier version wrote are rendered bit for bit as that version did.

rendered_at_bdad173.json holds specs, and hashes of the voxels that the code of commit bdad173 made of them in `scan`,
by `insert_tumors(ArrayVolume(hu, labels, spacing_mm), [spec], ORGAN)`, `zlib.crc32(hu)`, `zlib.crc32(labels)`.
"""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.spec import SCHEMA_VERSION, TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

MADE = json.loads(Path(__file__).with_name("rendered_at_bdad173.json").read_text())
ORGAN = Organ("kidney", (1,), 2)


def scan(spacing_mm) -> ArrayVolume:
    """A ball of organ in fat, between lung, bone and another organ."""
    axes = [np.arange(int(52 / step)) * step for step in spacing_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    labels = ((z - 26) ** 2 + (y - 25) ** 2 + (x - 25) ** 2 <= 18.5**2).astype(np.uint8)
    hu = np.where(labels == 1, 110.0, -95.0)
    hu[z > 46], hu[x < 4] = -820.0, 450.0
    other = (y > 44) & (labels == 0)
    labels[other], hu[other] = 5, 60.0
    hu += np.random.default_rng(1).normal(0, 11, hu.shape)
    return ArrayVolume(hu.astype(np.float32), labels, tuple(spacing_mm))


def rendered(spec: TumorSpec, spacing_mm) -> dict:
    volume = scan(spacing_mm)
    mask = insert_tumors(volume, [spec], ORGAN)[0].mask
    return {
        "spacing_mm": spacing_mm,
        "hu_crc32": zlib.crc32(volume.hu_array),
        "labels_crc32": zlib.crc32(volume.label_array),
        "mask_voxels": int(mask.sum()),
    }


def test_every_kind_of_tumor_is_kept():
    assert set(MADE) >= {"plain", "core", "capsule", "mass effect", "exophytic", "hu2023"}
    assert {record["spec"]["schema_version"] for record in MADE.values()} == {1}


@pytest.mark.parametrize("name", MADE)
def test_a_spec_of_version_1_gives_the_same_voxels(name):
    spec = TumorSpec.from_dict(MADE[name]["spec"])
    assert [rendered(spec, grid["spacing_mm"]) for grid in MADE[name]["grids"]] == MADE[name]["grids"]


@pytest.mark.parametrize("name", ["exophytic", "capsule"])
def test_what_is_new_gives_others(name):
    """That the hashes see a difference."""
    spec = replace(TumorSpec.from_dict(MADE[name]["spec"]), growth_radius_mm=2.0, capsule_mm=1.5)
    assert rendered(spec, [1.0, 1.0, 1.0])["hu_crc32"] != MADE[name]["grids"][0]["hu_crc32"]


def test_a_spec_of_version_1_is_written_as_one_of_this_version_and_stays_the_same_tumor():
    spec = TumorSpec.from_dict(MADE["exophytic"]["spec"])
    assert spec.schema_version == SCHEMA_VERSION == 2
    assert TumorSpec.from_dict(spec.to_dict()) == spec
    assert (spec.growth_radius_mm, spec.capsule_mm) == (0, 0)
