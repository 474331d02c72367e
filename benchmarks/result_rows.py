"""Rows of benchmark results in CSV files: with what they were made, and how they are added and read.

Every row names its device, versions and commit, so that files can grow over machines and years.
"""

import csv
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"
# For rows that nobody has decided to keep.
UNTRACKED = FOLDER.parents[1] / "build" / "results"


def provenance(device: str) -> dict[str, str]:
    """Where and with what rows are made now.

    Args:
        device: cuda or cpu.
    """
    import torch
    import triton

    name = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "device": name,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit(),
    }


def commit() -> str:
    """Of this clone, with -dirty where files are changed; "unknown" without git."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def append_rows(path: Path, rows: list, made: dict[str, str]) -> None:
    """Adds dataclass rows to a CSV file, with where they come from; a new file gets a head.

    Raises:
        ValueError: if the file has other columns.
    """
    if not rows:
        return
    names = [*made, *asdict(rows[0])]
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    if not new and (seen := path.read_text().partition("\n")[0].strip().split(",")) != names:
        raise ValueError(f"{path}: has the columns {seen}, expected {names}; move the file away")
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names, lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({**made, **{key: _short(value) for key, value in asdict(row).items()}})


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows of such a file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _short(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value
