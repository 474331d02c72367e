"""Statistics of organs on disk."""

import numpy as np
import pytest

from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.organ import Organ

LIVER = Organ("liver", (1,), 2)


@pytest.fixture
def store(tmp_path):
    """One case with a liver of 60 HU in fat."""
    labels = np.zeros((12, 14, 14), np.uint8)
    labels[3:9, 3:11, 3:11] = 1
    hu = np.where(labels, 60, -100) + np.random.default_rng(0).normal(0, 5, labels.shape)
    store = StatisticsStore(tmp_path, "plans_3d_fullres")
    store.measure("case_a", hu.astype(np.float32), labels, organs=[LIVER], spacing_mm=(2.0, 2.0, 2.0))
    return store


def test_what_a_killed_process_left_is_no_case(store):
    (store.folder / "liver" / ".tmp-0123abcd-case_b.npz").write_bytes(b"half of it")
    assert store.cases("liver") == {"case_a"}
