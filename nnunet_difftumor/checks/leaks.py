"""One scan under two names: twice in training, or in training and validation, or in another dataset."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tqdm import tqdm

from nnunet_difftumor.checks.finding import ERROR, WARNING, Finding
from nnunet_difftumor.checks.same_scan import Fingerprint, are_one

_KIND = "same-scan"


def same_scans(prints: Mapping[str, Fingerprint], splits: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Pairs of cases of one dataset that are one scan.

    Args:
        prints: by case.
        splits: content of splits_final.json; empty if there are no folds yet.
    """
    findings = []
    pairs = list(combinations(sorted(prints), 2))
    for one, other in tqdm(pairs, desc="compare", unit="pair", disable=None if len(pairs) > 1000 else True):
        if not are_one(prints[one], prints[other]):
            continue
        folds = [number for number, split in enumerate(splits) if _leaks(one, other, split)]
        if folds:
            seen = f"is the same scan as {other}; in fold {folds[0]} one of them validates what the other trains"
            findings.append(Finding(_KIND, one, ERROR, seen, "keep one of them, or put both on one side of every fold"))
        else:
            seen = f"is the same scan as {other}, which then counts twice"
            findings.append(Finding(_KIND, one, WARNING, seen, "keep one of them"))
    return findings


def same_scans_elsewhere(
    prints: Mapping[str, Fingerprint], others: Mapping[str, Fingerprint], dataset: str
) -> list[Finding]:
    """Cases that are also in another dataset.

    Args:
        prints: by case.
        others: by case of the other dataset.
        dataset: its name.
    """
    return [
        Finding(_KIND, one, ERROR, f"is the same scan as {other} of {dataset}", "keep it in one of the two")
        for one in sorted(prints)
        for other in sorted(others)
        if are_one(prints[one], others[other])
    ]


def _leaks(one: str, other: str, split: Mapping[str, Any]) -> bool:
    for learning, validating in ((("train", "synthesis_bases"), "val"), (("synthesis_bases",), "label_free_val")):
        held_out = set(split.get(validating, ()))
        learned = {case for key in learning for case in split.get(key, ())} - held_out
        if (one in held_out and other in learned) or (other in held_out and one in learned):
            return True
    return False
