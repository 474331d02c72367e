"""Methods compared on the same cases: differences that are there are found, others are not; and mistakes."""

import json

import numpy as np
import pytest
from evaluation_results import scan, write_result

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.comparing.compare import compare
from nnunet_difftumor.evaluation.results.layout import case_from_json, case_to_json


def cohort(rng, *, detection: float, dsc: float, count: int = 60, false: float = 0.5) -> dict:
    """Cases with an early and a large tumor, found with these chances; truth is the same for every rng."""
    return {
        f"case_{number:03d}": scan(
            [(12.0, bool(rng.random() < detection)), (30.0, bool(rng.random() < 0.9))],
            dsc=float(np.clip(dsc + 0.1 * rng.standard_normal(), 0, 1)),
            false=[8.0] * int(rng.poisson(false)),
        )
        for number in range(count)
    }


def of(compared, name):
    return compared["tumors"]["tumor"][name]


def test_a_planted_difference_is_found_and_none_is_not(tmp_path):
    rng = np.random.default_rng(2)
    without = write_result(tmp_path / "without.json", cohort(rng, detection=0.3, dsc=0.5))
    better = write_result(tmp_path / "better.json", cohort(rng, detection=0.7, dsc=0.6))
    same = write_result(tmp_path / "same.json", cohort(rng, detection=0.3, dsc=0.5))
    compared = compare([without, better, same], output=tmp_path / "compared.json")
    assert json.loads((tmp_path / "compared.json").read_text()) == compared
    early = of(compared, "better")["figures"]["detected_early"]
    assert early["difference"]["value"] == pytest.approx(0.4, abs=0.2)
    assert early["difference"]["low"] > 0 and early["p_holm"] < 0.05 and early["p_permutation"] < 0.05
    assert early["count"] == 60 and early["patients"] == 60
    dsc = of(compared, "better")["figures"]["dsc"]
    assert dsc["p_holm"] < 0.001 and dsc["effect"]["rank_biserial"] > 0.4
    told = of(compared, "better")["conclusion"]
    assert told.startswith("better detects more early tumors (by ") and "has a higher DSC" in told
    assert "other seeds of the training" in told
    assert of(compared, "same")["conclusion"].startswith("No difference between same and without was shown.")
    assert all(figure["p_holm"] > 0.05 for figure in of(compared, "same")["figures"].values())


def test_p_values_of_no_difference_are_spread_over_the_whole_range(tmp_path):
    """Of 40 comparisons without a difference a few fall below 5 %, not many."""
    rng, below, told = np.random.default_rng(1), 0, 0
    for number in range(40):
        pair = [
            write_result(tmp_path / f"{number}_{side}.json", cohort(rng, detection=0.5, dsc=0.5, count=20))
            for side in range(2)
        ]
        found = of(compare(pair), f"{number}_1")
        figures = found["figures"]
        told += not found["conclusion"].startswith("No difference")
        below += figures["dsc"]["p"] < 0.05
        assert figures["dsc"]["p"] == pytest.approx(figures["dsc"]["p_permutation"], abs=0.25)
    assert below <= 7 and told <= 5


def test_tumors_of_one_patient_are_one_fate_for_the_check_and_the_interval(tmp_path):
    """Twelve tumors that differ are significant one by one; in two patients nothing is."""
    first = {f"c{n}": scan([(12.0, False)] * 6) for n in range(2)} | {f"d{n}": scan([(12.0, True)]) for n in range(6)}
    second = {f"c{n}": scan([(12.0, True)] * 6) for n in range(2)} | {f"d{n}": scan([(12.0, True)]) for n in range(6)}
    compared = compare([write_result(tmp_path / f"{n}.json", c) for n, c in (("a", first), ("b", second))])
    early = of(compared, "b")["figures"]["detected_early"]
    assert early["p"] < 0.001 and early["p_permutation"] == 0.5
    assert early["difference"]["low"] == 0
    assert of(compared, "b")["conclusion"].startswith("No difference")


def test_with_probabilities_detection_is_compared_at_equal_false_positives(tmp_path):
    # The first detects both tumors, the second one, at a stricter threshold; ranked, the second is better.
    eager = {
        f"c{n}": scan([(12.0, True)], false=[8.0] * 3, confidences=[0.6], false_confidences=[0.9, 0.8, 0.7])
        for n in range(8)
    }
    strict = {f"c{n}": scan([(12.0, False)], confidences=[0.4], false_confidences=[0.2]) for n in range(8)}
    ranked = {"candidates": {"threshold": 0.1}}
    pair = [write_result(tmp_path / f"{n}.json", c, settings=ranked) for n, c in (("eager", eager), ("strict", strict))]
    figures = of(compare(pair), "strict")["figures"]
    assert figures["detected"]["difference"]["value"] == -1
    at_equal = figures["detected_at_equal_false_positives"]
    assert (at_equal["first"], at_equal["second"], at_equal["p"]) == (0.0, 1.0, None)


def test_few_patients_conclude_nothing(tmp_path):
    pair = [
        write_result(tmp_path / f"{n}.json", {f"c{i}": scan([(12.0, hit)]) for i in range(3)})
        for n, hit in (("a", False), ("b", True))
    ]
    found = of(compare(pair), "b")
    assert found["conclusion"].startswith("Nothing may be concluded about b against a: with 3 patients no test")
    assert found["figures"]["detected"]["difference"]["value"] == 1


def test_cases_come_back_from_json_as_they_were():
    case = scan([(12.0, True), (3.0, False)], false=[8.0], confidences=[0.9, None], false_confidences=[0.2])
    back = case_from_json(json.loads(json.dumps(case_to_json(case, patient="p1"))))
    assert case_to_json(back, patient="p1") == case_to_json(case, patient="p1")
    assert len(back.findings) == 2 and back.tumors == case.tumors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cases": {"other": scan([(12.0, True)])}}, "a, other are in one only; evaluate the same cases"),
        ({"cases": {"a": scan([(13.0, True)])}}, "the true tumors of a differ"),
        ({"settings": {"nsd_tolerance_mm": 1.0}}, "nsd_tolerance_mm is 1.0 in one and 2.0 in the other"),
        ({"tumor": "cyst"}, "have the tumor labels cyst and tumor"),
        ({"patients": {"a": "p"}}, "the patients of their cases differ"),
    ],
)
def test_results_of_other_cases_or_settings_are_not_compared(tmp_path, change, said):
    cases = {"a": scan([(12.0, True)])}
    first = write_result(tmp_path / "first.json", cases)
    arguments = {"cases": cases} | change
    second = write_result(tmp_path / "second.json", arguments.pop("cases"), **arguments)
    with pytest.raises(InputError, match=said):
        compare([first, second])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not found; make it with `difftumor evaluate"),
        ("{", "is not valid JSON"),
        ("[]", r"is \[\], expected a result of `difftumor evaluate`"),
        ("{}", "schema_version is None, expected 2"),
        ('{"schema_version": 2, "tumors": {"t": {"cases": {"a": {"dsc": "x"}}}}, "settings": {}}', "not a result of"),
    ],
)
def test_files_that_are_no_results_are_named(tmp_path, content, said):
    good = write_result(tmp_path / "good.json", {"a": scan([(12.0, True)])})
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    with pytest.raises(InputError, match=f"bad.json.*{said}"):
        compare([good, bad])
    with pytest.raises(InputError, match="two or more"):
        compare([good])
    with pytest.raises(InputError, match="given twice"):
        compare([good, good])


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    cases = {"a": scan([(12.0, True)])}
    files = []
    for fold in ("x", "y"):
        (tmp_path / fold).mkdir()
        files.append(write_result(tmp_path / fold / "metrics.json", cases))
    assert list(compare(files)["results"]) == ["x/metrics", "y/metrics"]
    assert list(compare(files, names=["one", "two"])["results"]) == ["one", "two"]
    with pytest.raises(InputError, match="`names`: expected 2 different ones"):
        compare(files, names=["one"])
