import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tumors import LIVER, liver_scan, spec

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.lesion_file import read_lesion, write_lesion
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.volume import ArrayVolume

VOLUME = liver_scan(40.0)
TUMOR = HandcraftedRenderer().render([patch_of(VOLUME, spec(), LIVER)], [spec()])[0]


@pytest.fixture
def lesion(tmp_path):
    path = tmp_path / "bank" / "a.lesion.npz"
    write_lesion(path, TUMOR, VOLUME)
    return path


def test_a_lesion_survives_the_file(lesion):
    again = read_lesion(lesion, VOLUME)
    assert again.spec == TUMOR.spec
    assert again.box == TUMOR.box
    np.testing.assert_array_equal(again.mask, TUMOR.mask)
    # A difference added again: exact to a rounding of float32 at some hundred HU.
    np.testing.assert_allclose(again.hu, TUMOR.hu, atol=1e-4)
    unchanged = VOLUME.hu(TUMOR.box) == TUMOR.hu
    np.testing.assert_array_equal(again.hu[unchanged], VOLUME.hu(TUMOR.box)[unchanged])


def test_the_change_follows_the_scan(lesion):
    brighter = ArrayVolume(VOLUME.hu_array + 50, VOLUME.label_array, VOLUME.spacing_mm)
    np.testing.assert_allclose(read_lesion(lesion, brighter).hu, TUMOR.hu + 50, atol=1e-4)


def test_only_the_whole_file_appears(lesion):
    assert [file.name for file in lesion.parent.iterdir()] == ["a.lesion.npz"]


@pytest.mark.parametrize(
    "other",
    [liver_scan(41.0), liver_scan(40.0, (1.0, 1.0, 1.001)), liver_scan(20.0, (0.5, 0.5, 0.5))],
    ids=["shape", "spacing", "both"],
)
def test_a_lesion_of_another_grid_is_refused(lesion, other):
    with pytest.raises(InputError, match=r"a\.lesion\.npz: made for a grid of .* but the case has"):
        read_lesion(lesion, other)


@pytest.mark.parametrize(
    "content", [b"", b"no lesion", b"PK\x03\x04 no zip either", b"\x93NUMPY garbage", b"\x80\x04."]
)
def test_garbage_is_refused(lesion, content):
    lesion.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.lesion\.npz: cannot be read as a lesion file"):
        read_lesion(lesion, VOLUME)


def test_an_array_of_objects_is_not_unpickled(lesion):
    changed(lesion, spec=np.array([object()]))
    with pytest.raises(InputError, match=r"cannot be read as a lesion file \(Object arrays cannot be loaded"):
        read_lesion(lesion, VOLUME)


def test_a_plain_array_is_refused(lesion):
    with open(lesion, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="no npz archive"):
        read_lesion(lesion, VOLUME)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.lesion\.npz"):
        read_lesion(tmp_path / "none.lesion.npz", VOLUME)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_does_not_matter(lesion, data):
    write_lesion(lesion, TUMOR, VOLUME)
    content = bytearray(lesion.read_bytes())
    if data.draw(st.booleans(), "truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    lesion.write_bytes(content)
    try:
        again = read_lesion(lesion, VOLUME)
    except InputError as error:
        assert "a.lesion.npz" in str(error)
    else:
        np.testing.assert_array_equal(again.mask, TUMOR.mask)
        np.testing.assert_allclose(again.hu, TUMOR.hu, atol=1e-4)


def changed(lesion, **values):
    with np.load(lesion) as stored:
        arrays = dict(stored) | values
    with open(lesion, "wb") as file:
        np.savez(file, **{key: value for key, value in arrays.items() if value is not None})


SHAPE = TUMOR.mask.shape


@pytest.mark.parametrize(
    "values",
    [
        {"mask": np.zeros(SHAPE, bool)},
        {"mask": np.ones(SHAPE, np.uint8)},
        {"mask": np.ones((2, 2, 2), bool)},
        {"change_hu": np.full(SHAPE, np.nan, np.float32)},
        {"change_hu": np.zeros(SHAPE, np.float64)},
        {"change_hu": np.zeros(SHAPE[:2], np.float32)},
        {"start": np.array([-1, 0, 0])},
        {"start": np.array([0, 0, 39])},
        {"start": np.array([0, 0])},
        {"start": np.array(["a", "b", "c"])},
        {"grid_shape": np.array([40, 40])},
        {"grid_spacing_mm": np.array(["1", "1", "1"])},
        {"spec": np.array("no json")},
        {"spec": np.array("[1, 2]")},
        {"spec": np.array(json.dumps(spec().to_dict() | {"schema_version": 99}))},
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused(lesion, values):
    changed(lesion, **values)
    with pytest.raises(InputError, match=r"a\.lesion\.npz: is damaged"):
        read_lesion(lesion, VOLUME)


MOVED = TUMOR.labels.copy()
MOVED[0, 0, 0] += 1
TWO = np.where(TUMOR.mask & (np.arange(SHAPE[0])[:, None, None] % 2 == 0), 7, TUMOR.labels)
BRIGHT = np.where(TUMOR.mask, np.float32(1e9), np.float32(0))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labels": MOVED}, "its labels beside the tumor are not those of the case"),
        ({"labels": np.zeros_like(TUMOR.labels)}, "its labels beside the tumor are not those of the case"),
        ({"labels": TWO}, "its tumor has several labels"),
        ({"change_hu": BRIGHT}, r"changes a voxel by 1e\+09 HU"),
        (
            {"labels": MOVED + 90, "spec": np.array(json.dumps(spec(mass_effect=0.5).to_dict()))},
            "its labels beside the tumor are not those of the case",
        ),
    ],
    ids=["one voxel", "all", "two labels", "HU", "mass effect"],
)
def test_what_no_renderer_makes_is_refused(lesion, values, said):
    changed(lesion, **values)
    with pytest.raises(InputError, match=rf"a\.lesion\.npz: {said}"):
        read_lesion(lesion, VOLUME)


def test_a_small_file_of_gigabytes_is_not_unpacked(lesion):
    """Zeros are compressed a thousand times."""
    with np.load(lesion) as stored:
        arrays = dict(stored)
    with open(lesion, "wb") as file:
        np.savez_compressed(file, **{**arrays, "change_hu": np.zeros((1 << 28) + 1, np.float32)})
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"cannot be read as a lesion file .10737.* bytes, compressed"):
            read_lesion(lesion, VOLUME)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_missing_array_is_named(lesion):
    changed(lesion, mask=None)
    with pytest.raises(InputError, match="mask missing"):
        read_lesion(lesion, VOLUME)
