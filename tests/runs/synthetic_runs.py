"""Folders of runs with synthetic samples, without any training."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_difftumor.files import write_json
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.runs.recorder import SynthesisRecorder
from nnunet_difftumor.runs.synthesis_log import LOG_FOLDER, summary_path
from nnunet_difftumor.synthesis.look.sample_shares import SampleShares

# When epoch 0 was finished, in s since 1970.
BEGIN = 1.8e9
SERVER = {"state": "running", "restarts": 0, "tumors": 40, "batches": 10, "queue": 3, "deepest_queue": 9}
SERVER |= {"latency_ms": {"p50": 200.0, "p95": 400.0, "max": 900.0}, "gpu_memory_gb": 3.2, "updated": "some day"}
SERVER |= {"render_ms_per_tumor": {"p50": 55.0, "p95": 60.0, "max": 70.0}}


def recorder(folder, *, direction=lambda case: np.eye(3)[:, ::-1]) -> SynthesisRecorder:
    """Of a run on one GPU that asks for half of the samples; `direction` of a case."""
    intensity = CTIntensity((-175.0, 250.0), 100.0, 40.0)
    asked = SampleShares(0.5, 0.5, 0.0)
    return SynthesisRecorder(
        folder,
        rank=0,
        asked=asked,
        batches_per_epoch=250,
        intensity=intensity,
        tumor_labels=(2,),
        regions=None,
        spacing_mm=(3.0, 1.0, 1.0),
        direction=direction,
    )


def batch(index: int, *, in_target: bool, refused: tuple[str, ...] = (), faint: int = 0) -> dict:
    """Of two samples, the second to be synthetic."""
    target = torch.ones((2, 1, 8, 8, 8), dtype=torch.int16)
    if in_target:
        target[1, 0, 3:5, 3:5, 3:5] = 2
    tumors = [{"size_class": "tiny"}, {"size_class": "small"}] if in_target else []
    return {
        "data": torch.from_numpy(np.random.default_rng(index).normal(size=(2, 1, 8, 8, 8)).astype(np.float32)),
        "target": [target],
        "keys": ["a", "b"],
        "kinds": ["real", "synthetic"],
        "index": index,
        "samples": [
            {
                "number": 2 * index + 1,
                "sample": 1,
                "case": "b",
                "tumors": tumors,
                "refused": list(refused),
                "faint": faint,
                "in_target": in_target,
                "source": "handcrafted",
                "milliseconds": 10.0 * index,
                "waited_ms": 0.0,
                "crc32": 0,
            }
        ],
    }


def write_epoch(folder: Path, epoch: int, *, rank: int = 0, after_s: float | None = None, **figures: Any) -> None:
    """Writes the summary of an epoch.

    Args:
        folder: of the run.
        epoch: its number.
        rank: of the process.
        after_s: from the end of epoch 0 to its end; None: 100 per epoch.
        figures: others than those of an epoch with hand-crafted tumors.
    """
    finished = time.localtime(BEGIN + (100 * epoch if after_s is None else after_s))
    summary = {
        "epoch": epoch,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S", finished),
        "samples": 500,
        "asked": 0.5,
        "drawn": 250,
        "reached": 240,
        "share": 0.48,
        "sizes": {"tiny": 140, "small": 170, "medium": 60, "large": 20},
        "sources": {"handcrafted": 250},
        "refused": {},
        "synthesis_ms": {"p50": 38.0, "p95": 120.0, "max": 410.0},
        "waited_ms": None,
        "server": None,
    }
    write_json(summary_path(folder, epoch, rank), summary | figures)


def write_server(folder: Path, *, rank: int = 0, **figures: Any) -> Path:
    """Writes the account of a server; returns its file."""
    path = folder / LOG_FOLDER / f"server_rank_{rank}.json"
    write_json(path, SERVER | figures)
    return path
