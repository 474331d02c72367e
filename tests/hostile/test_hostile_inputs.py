"""Damaged and hostile inputs end in one line, soon, without much memory, and nothing is written elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOTALS = Path(__file__).with_name("totals.py")


@pytest.mark.slow(file_seconds=60)
@pytest.mark.parametrize("inputs", [140, pytest.param(2000, marks=pytest.mark.long)])
def test_no_input_ends_in_a_traceback_hangs_or_takes_a_gigabyte(inputs):
    """In a process of its own, as it forks."""
    done = subprocess.run(
        [sys.executable, TOTALS, "--inputs", str(inputs), "--seed", "1"], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0 and "no fault" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    # Mutations that are all refused, or all without effect, would try nothing.
    assert sum(int(row[2]) for row in rows) > inputs / 3 and sum(int(row[3]) for row in rows) > inputs / 50


def test_the_page_has_the_stored_totals():
    root = TOTALS.parents[2]
    stored = json.loads((root / "benchmarks" / "results" / "hostile_inputs.json").read_text())["totals"]
    sys.path.insert(0, str(TOTALS.parent))
    try:
        from totals import table
    finally:
        sys.path.remove(str(TOTALS.parent))
    assert table(stored) in (root / "docs" / "security.md").read_text()
    assert sum(one["inputs"] for one in stored.values()) >= 2000 and not any(one["faults"] for one in stored.values())
