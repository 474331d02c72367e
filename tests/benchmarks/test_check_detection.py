"""The benchmark of `difftumor check`: faults are what they are called, and bars are missed where they are not found."""

import importlib

import numpy as np
import pytest
from pages import REPOSITORY


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        yield importlib.import_module("check_detection")


@pytest.fixture(scope="module")
def cases(benchmark):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "REAL", {})
        patch.setattr(benchmark, "PERSONS", 2)
        yield benchmark.load(None)


def test_a_turned_mask_is_turned_about_its_middle(benchmark):
    mask = np.zeros((30, 40, 40), bool)
    mask[10:20, 18:22, 10:30] = True
    quarter = benchmark.turned(mask, (2, 0, 0), 90)
    assert np.array_equal(np.argwhere(quarter).mean(0), np.argwhere(mask).mean(0))
    assert np.array_equal(quarter, mask.transpose(0, 2, 1))
    assert np.array_equal(benchmark.turned(mask, (1, 1, 1), 0), mask)


def test_shifts_of_phantoms_are_counted_and_found(benchmark, cases):
    counts = benchmark.shifts(cases)
    assert {name: count.seeded for name, count in counts.items()} == {f"{mm} mm": 36 for mm in (4, 8, 12, 20)}
    assert all(counts[f"{mm} mm"].share == 1 for mm in (8, 12, 20))


def test_every_variant_of_a_phantom_is_recognized(benchmark, cases):
    known = benchmark.fingerprint(cases[0].measure.hu)
    found = {name: benchmark.are_one(known, variant) for name, variant in benchmark.variants(cases[0])}
    assert len(found) == 12 and all(found.values())


def test_bars_are_missed_where_faults_are_not_found(benchmark):
    count = benchmark.Count()
    for number in range(100):
        count.add(number > 1, f"fault {number}")
    assert count.to_dict() == {"found": 98, "of": 100, "missed": ["fault 0", "fault 1"]}
    good = benchmark.Count()
    good.add(True, "")
    organs = ("liver", "kidney", "kidneys", "spleen", "pancreas")
    result = {
        "alarms_in_sound_data": [],
        "shifts": {f"{mm} mm": good for mm in (4, 8, 12, 20)},
        "turns": {f"{organ} {degrees} degrees": good for organ in organs for degrees in (10, 15, 20, 30)},
        "mirrored": {"liver": good},
        "labels_of_other_patients": {"real": good, "phantoms": good},
        "same_scans": {"variants": good, "pairs_taken_for_one": 0},
        "seconds_per_case": 1.0,
    }
    assert benchmark.missed_bars(result) == []
    result |= {"alarms_in_sound_data": ["one"], "mirrored": {"liver": count}, "seconds_per_case": 3.0}
    result["shifts"]["8 mm"] = count
    assert benchmark.missed_bars(result) == ["alarms in sound data", "shifts by 8 mm", "mirrored livers", "seconds"]
