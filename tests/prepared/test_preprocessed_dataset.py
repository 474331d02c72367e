"""Properties of preprocessed cases: read as nnU-Net reads them, and never run."""

import json
import os
import pickle
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.prepared.nnunet.preprocessed_dataset import (
    PreprocessedDataset,
    _PropertiesUnpickler,
    check_properties,
)

SCRIPTS = Path(sysconfig.get_path("scripts"))
NUMBERS = arrays.arrays(
    st.sampled_from(["f4", "f8", ">f8", "i2", "i8", "u1", "?"]), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)
)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@given(values=NUMBERS, protocol=st.integers(3, 5), scalar=st.floats(width=32))
def test_arrays_and_numbers_are_read_as_pickle_reads_them(values, protocol, scalar):
    content = {"a": values, "b": values.T, "c": [np.float32(scalar), np.int64(3), values.shape], (1, 2): values}
    data = pickle.dumps(content, protocol)
    found, expected = _PropertiesUnpickler(data).load(), pickle.loads(data)
    assert found.keys() == expected.keys() and found["c"][2] == values.shape
    for key in ("a", "b", (1, 2)):
        np.testing.assert_array_equal(found[key], values.T if key == "b" else values)
        assert found[key].dtype == expected[key].dtype
    np.testing.assert_array_equal(found["c"][0], np.float32(scalar))


def test_a_prepared_case_is_what_nnunet_reads(prepared_phantom):
    folder = str(prepared_phantom.preprocessed / "nnUNetPlansDiffTumor_3d_fullres")
    ours, theirs = PreprocessedDataset(folder), nnUNetDatasetBlosc2(folder)
    for case in theirs.identifiers:
        own, stock = ours.load_case(case), theirs.load_case(case)
        np.testing.assert_array_equal(own[0][:], stock[0][:])
        assert own[3].keys() == stock[3].keys() and own[3]["spacing"] == stock[3]["spacing"]


@pytest.mark.parametrize(
    "content",
    [
        lambda marker: Payload(marker),
        lambda marker: {"spacing": [1, 1, 1], "class_locations": {1: Payload(marker)}},
        lambda marker: {"spacing": np.array([Payload(marker)], object)},
        lambda marker: {"spacing": np.zeros(1, [("a", "f4")])},
        lambda marker: {"spacing": np.datetime64("2024-01-01")},
        lambda marker: {"folder": marker},
    ],
)
def test_what_is_no_number_text_or_array_is_refused_and_does_not_run(tmp_path, content):
    path, marker = tmp_path / "case.pkl", tmp_path / "was_run"
    path.write_bytes(pickle.dumps(content(marker), 4))
    with pytest.raises(InputError, match=r"case.pkl: is damaged, or holds other things .* run `difftumor prepare`"):
        check_properties(path)
    assert not marker.exists()


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "case.pkl"
    content = pickle.dumps(np.arange(5, dtype=np.int16), 4)
    path.write_bytes(content.replace(b"K\x05\x85", b"J\0\0\0\x40\x85"))  # the shape
    with pytest.raises(InputError, match=r"10 bytes for an array of \(1073741824,\)"):
        check_properties(path)


@pytest.mark.slow(file_seconds=30)
def test_commands_refuse_a_foreign_case_whose_properties_would_run_code(copy_of_prepared_phantom, tmp_path):
    """Its arrays are sound, and its settings say that nothing is to stop a training."""
    marker = tmp_path / "was_run"
    for path in copy_of_prepared_phantom.glob("nnUNetPlansDiffTumor_3d_fullres/*.pkl"):
        path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | {"note": Payload(marker)}))
    number, settings = copy_of_prepared_phantom.name[7:10], copy_of_prepared_phantom / "difftumor.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"on_wrong_data": "warn"}))
    for command in (
        f"difftumor check -d {number}",
        f"difftumor preview -d {number} -o {tmp_path}/preview",
        f"difftumor synthesize --bank -d {number} --per-case 1 -o {tmp_path}/bank",
        f"nnUNetv2_train {number} 3d_fullres 0 -tr nnUNetTrainerDiffTumorTiny -p nnUNetPlansDiffTumor -device cpu",
    ):
        name, *words = command.split()
        done = subprocess.run([SCRIPTS / name, *words], capture_output=True, text=True, timeout=300)
        said = done.stdout + done.stderr
        assert done.returncode != 0 and not marker.exists(), said
        # `check` sees that they are not what was written, before it looks inside.
        assert ".pkl" in said and ("which could run code" in said or "check" in words), said
