"""Loaders with live tumors on the prepared phantom, with and without the real networks."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tiny_networks
from trainer_of import trainer_of

from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny

ALL_WEIGHTS = [f"{organ}_{stage}" for organ in ("liver", "pancreas", "kidney") for stage in ("early", "late")]


def write_settings(dataset_folder: Path, folder: Path, *, live: dict | None = None, **changes) -> Path:
    """A difftumor.json for live tumors, with weights beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights"
    if not weights.is_dir():
        tiny_networks.write_weights(weights, *ALL_WEIGHTS)
    record = DiffTumorConfig.load(dataset_folder / "difftumor.json").to_dict()
    record |= {"source": "live", "live": {"weights_folder": str(weights), "timeout_s": 20.0} | (live or {})} | changes
    path = folder / "difftumor.json"
    path.write_text(json.dumps(record))
    return path


def make_trainer(dataset_folder: Path, settings: Path, *, epoch: int = 0) -> nnUNetTrainerDiffTumorTiny:
    """A trainer on the phantom with these settings."""
    trainer = trainer_of(dataset_folder, settings=settings)
    trainer.current_epoch = epoch
    return trainer


@contextmanager
def loader_of(trainer, log: Path) -> Iterator:
    """Its training loader, while server and workers run."""
    live = trainer.synthesis.live
    if live is not None:
        live.start(device="cpu", gpu=None, folder=log, rank=0)
    loaders = ()
    try:
        loaders = trainer.get_dataloaders()
        yield loaders[0]
    finally:
        for loader in loaders:
            if hasattr(loader, "_finish"):
                loader._finish()
        if live is not None:
            live.stop()


def samples_of(batches: list[dict]) -> list[dict]:
    """The records of all synthetic samples."""
    return [sample for batch in batches for sample in batch["samples"]]


def voxels(batch: dict) -> str:
    parts = [batch["data"], *batch["target"]]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part.numpy()).tobytes() for part in parts)).hexdigest()


def drawn(batch: dict) -> tuple:
    """What a batch shows, whoever rendered it: cases, specs, refusals and labels."""
    keys = ("number", "case", "source", "tumors", "look_alikes", "refused", "in_target")
    labels = hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch["target"])).hexdigest()
    return batch["index"], batch["keys"], [[sample[key] for key in keys] for sample in batch["samples"]], labels


def consistent(batch: dict, tumor_labels=(2, 4, 6)) -> bool:
    """Whether every tumor that the target has is in the account, and none is there without pasted voxels."""
    said = {sample["sample"]: sample for sample in batch["samples"]}
    for position, target in enumerate(batch["target"][0]):
        in_target = bool(np.isin(target.numpy(), tumor_labels).any())
        sample = said.get(position)
        if sample is None:
            continue  # real cases have tumors of their own
        if in_target != sample["in_target"] or (in_target and not sample["tumors"]):
            return False
    return True


def processes_with(mark: str) -> list[int]:
    """Running processes that have this value in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if mark.encode() in (folder / "environ").read_bytes() and state != "Z":
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return [pid for pid in found if pid != os.getpid()]


def wait_until(condition, *, seconds: float) -> bool:
    """Whether it became true within the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
