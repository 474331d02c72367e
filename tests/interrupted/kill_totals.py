"""Kills commands at random moments, runs each again, and counts what came of it.

`python tests/interrupted/kill_totals.py --store` makes the table of docs/security.md.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from commands_that_write import make_inputs
from result_rows import provenance
from shared_phantoms import make_phantom_dataset
from trials import SIGNALS, VERBS, moments, trials_of

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "killed_commands.json"


def count(verb: str, inputs: Path, folder: Path, *, times: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Kills a command so often by each signal, and a quarter as often twice."""
    start = time.monotonic()
    trial = trials_of(verb, inputs, folder / "trial")
    until_s = trial.seconds
    plans = [[(number, one)] for number in SIGNALS for one in moments(verb, number, count=times, until_s=until_s)]
    pairs = zip(*(moments(verb, 100 + turn, count=times // 4, until_s=until_s) for turn in range(2)), strict=True)
    plans += [[(signal.SIGKILL, one) for one in pair] for pair in pairs]
    total: dict[str, Any] = {"kills": 0, "stopped": {number.name: 0 for number in SIGNALS}, "twice": times // 4}
    total["faults"] = []
    for kills in plans:
        ended, faults = trial.killed_and_run_again(kills)
        total["kills"] += len(kills)
        for (number, _), one in zip(kills, ended, strict=True):
            total["stopped"][signal.Signals(number).name] += one.status != 0
        total["faults"] += faults
        for fault in faults:
            report(fault)
    return total | {"undisturbed_s": round(trial.seconds, 1), "seconds": round(time.monotonic() - start)}


def table(totals: dict[str, dict[str, Any]]) -> str:
    """Of docs/security.md."""
    lines = ["| command | undisturbed, s | killed | of them twice | stopped by SIGKILL | SIGTERM | SIGINT | faults |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for verb, one in totals.items():
        stopped = " | ".join(str(one["stopped"][number.name]) for number in SIGNALS)
        figures = f"{one['undisturbed_s']:g} | {one['kills']} | {2 * one['twice']}"
        lines.append(f"| {verb} | {figures} | {stopped} | {len(one['faults'])} |")
    return "\n".join(lines)


def main() -> int:
    """Exits 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", choices=VERBS, action="append", help="default: all")
    parser.add_argument("--times", type=int, default=20, help="for each signal")
    parser.add_argument("--store", action="store_true", help="put the result into benchmarks/results")
    arguments = parser.parse_args()
    totals = {}
    with tempfile.TemporaryDirectory(prefix="killed-") as base:
        for name in ("raw", "preprocessed", "results"):
            (Path(base) / name).mkdir()
            os.environ[f"nnUNet_{name}"] = str(Path(base) / name)
        verbs = arguments.verb or VERBS
        if "bank" in verbs:
            make_phantom_dataset()
        inputs = make_inputs(Path(base) / "inputs")
        for verb in verbs:
            (Path(base) / verb).mkdir()
            totals[verb] = count(verb, inputs, Path(base) / verb, times=arguments.times, report=print)
            print(table(totals).splitlines()[-1], f"{totals[verb]['seconds']} s", flush=True)
            if arguments.store:
                _store(verb, totals[verb])
    print(table(totals))
    return int(any(one["faults"] for one in totals.values()))


def _store(verb: str, total: dict[str, Any]) -> None:
    before = json.loads(RESULT.read_text())["totals"] if RESULT.is_file() else {}
    found = {**before, verb: total}
    ordered = {name: found[name] for name in VERBS if name in found}
    RESULT.write_text(json.dumps({**provenance("cpu"), "totals": ordered}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
