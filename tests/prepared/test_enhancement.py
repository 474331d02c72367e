"""Which bases are said to look unenhanced."""

from dataclasses import replace

import numpy as np
import pytest

from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.enhancement import unenhanced_notes
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics

LIVER, KIDNEY = Organ("liver", (1,), 2), Organ("left_kidney", (3,), 4)
CONFIG = DiffTumorConfig(organs=(LIVER, KIDNEY))


@pytest.fixture
def store_of(tmp_path):
    """Statistics of cases whose organs have the given HU."""

    def make(organ_hu: dict[str, dict[Organ, float]]) -> StatisticsStore:
        store = StatisticsStore(tmp_path, "plans_3d_fullres")
        for case, found in organ_hu.items():
            for organ, hu in found.items():
                labels = np.zeros((6, 6, 6), np.uint8)
                labels[1:5, 1:5, 1:5] = organ.organ_labels[0]
                values = np.where(labels, hu, -100).astype(np.float32)
                store.measure(case, values, labels, organs=[organ], spacing_mm=(3.0, 3.0, 3.0))
        return store

    return make


def test_unenhanced_bases_are_counted_with_what_tumors_there_look_like(store_of):
    store = store_of(
        {"a": {LIVER: 45}, "b": {LIVER: 60, KIDNEY: 33}, "c": {LIVER: 110, KIDNEY: 170}, "no_base": {LIVER: 50}}
    )
    liver, kidney = unenhanced_notes(CONFIG, store, ["a", "b", "c", "without_organs"])
    # Liver tumors mostly lack 36 % of what exceeds 20 HU: 9.0 HU in a and 14.4 in b; kidney tumors 40 %, 5.2 HU.
    assert liver.startswith("2 of 3 bases look unenhanced (liver 45 to 60 HU): ") and " 9 to 14 HU darker" in liver
    assert kidney.startswith("1 of 2 bases look unenhanced (left_kidney 33 HU): ") and " 8 HU darker" in kidney


@pytest.mark.parametrize("organ", [LIVER, KIDNEY])
def test_the_limit_is_where_usual_tumors_become_hard_to_see(store_of, organ):
    """Whatever numbers the preset has."""
    config = replace(CONFIG, organs=(organ,))
    for hu in range(40, 110, 4):
        store = store_of({"a": {organ: hu}})
        statistics = store.load("a", organ.name)
        rng = np.random.default_rng(0)
        drawn = [PRESETS["realistic"].draw(organ.name, "large", statistics=statistics, rng=rng) for _ in range(400)]
        usual = np.median([-spec.contrast_hu for spec in drawn if spec.contrast_hu < 0])
        if abs(usual - 17) > 3:
            assert bool(unenhanced_notes(config, store, ["a"])) == (usual < 17), hu


@pytest.mark.parametrize(
    "changes",
    [{"preset": "hu2023"}, {"contrast_hu": (-40.0, -15.0)}, {"source": "bank", "bank_folder": "bank"}],
    ids=lambda changes: next(iter(changes)),
)
def test_nothing_is_said_where_contrast_does_not_follow_enhancement(store_of, changes):
    assert unenhanced_notes(replace(CONFIG, **changes), store_of({"a": {LIVER: 45}}), ["a"]) == []


def test_statistics_are_read_as_they_were_measured(store_of):
    store = store_of({"a": {LIVER: 57}})
    assert store.parenchyma_hu("a", "liver") == OrganStatistics.load(store.path("a", "liver")).parenchyma_hu == 57
