"""A run on disk.

FOLDER/autoencoder.safetensors, liver_early.safetensors, ...   weights of the last checkpoint, each with a JSON
FOLDER/runs/NAME/settings.json      resolved settings, and what is trained on
FOLDER/runs/NAME/last.ckpt          Lightning's checkpoint, with which the run resumes
FOLDER/runs/NAME/best.ckpt, best/   of the lowest validation figure: checkpoint and weights
FOLDER/runs/NAME/curve.jsonl        a line per entry: step and figures
FOLDER/runs/NAME/tensorboard/, pictures/
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import nnunet_difftumor
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path, write_json
from nnunet_difftumor.generative.training.settings import TrainingSettings, check_unchanged
from nnunet_difftumor.json_checks import load_json

# The workers of a killed training notice within 5 s that it is gone, and hold its lock until then.
LOCK_WAIT_S = 10


@dataclass(frozen=True)
class RunFolder:
    """Places of a run.

    Attributes:
        weights_folder: FOLDER above.
        name: NAME above, and of the weights.
    """

    weights_folder: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.weights_folder / "runs" / self.name

    @property
    def weights(self) -> Path:
        return self.weights_folder / f"{self.name}.safetensors"

    @property
    def best_weights(self) -> Path:
        return self.folder / "best" / f"{self.name}.safetensors"

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For the first process of one training at a time.

        Raises:
            InputError: if another training is at work here.
        """
        lock = FileLock(self.folder.with_name(f"{self.name}.lock"), timeout=LOCK_WAIT_S)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"{self.folder}: another process is training there; wait for it, or stop it") from error
        try:
            yield
        finally:
            lock.release()

    def begin(self, settings: TrainingSettings, about: dict[str, Any], *, world_size: int, overwrite: bool) -> int:
        """Step that the run resumes after; 0 for a new one.

        Args:
            settings: of the run.
            about: what is trained on; a run does not resume with anything else.
            world_size: number of processes, which decides what a batch is.
            overwrite: removes an older run.

        Raises:
            InputError: if the run was started with other settings, data or processes, or its checkpoint is damaged.
        """
        page = self.folder / "settings.json"
        if overwrite and self.folder.exists():
            if world_size > 1:
                raise InputError(f"`overwrite`: with several processes, remove {self.folder} yourself")
            shutil.rmtree(self.folder)
        content = {"settings": asdict(settings), "about": about, "processes": world_size}
        step = 0
        if self.last.is_file():
            if not page.is_file():
                raise InputError(f"{page}: not found, but there is a checkpoint; start again with `overwrite`")
            stored = load_json(page)
            for key, value in {**about, "processes": world_size}.items():
                before = stored["processes"] if key == "processes" else stored["about"].get(key)
                if before != json.loads(json.dumps(value)):
                    raise InputError(
                        f"{self.folder}: was started with {key} {_short(before)}, now {_short(value)}; give the same, "
                        "or start again with `overwrite`"
                    )
            check_unchanged(stored["settings"], settings, where=str(self.folder))
            step = stored_step(self.last)
        if int(os.environ.get("RANK", 0)) == 0:
            self._remove_leftovers()
            write_json(page, content)
        return step

    def _remove_leftovers(self) -> None:
        """Half-written files of a killed process; checkpoints are large."""
        own = self.weights_folder.glob(f".tmp-*-{self.name}.*")
        for path in (*own, *self.folder.rglob(".tmp-*")):
            path.unlink(missing_ok=True)


class Curve:
    """Figures of the run by step, one JSON line per entry; what a killed run wrote after its checkpoint is dropped.

    Args:
        path: the file.
        step: the one that the run resumes after.
    """

    def __init__(self, path: Path, *, step: int):
        kept = [line for line in read_curve(path) if line["step"] <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a")  # noqa: SIM115

    def add(self, step: int, figures: dict[str, float], *, part: str) -> None:
        """Adds a line, on disk at once."""
        self._file.write(json.dumps({"step": step, "part": part, **figures}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The entries of a curve.jsonl; a last line that is not complete is left out."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def stored_step(checkpoint: Path) -> int:
    """How many steps a checkpoint has done.

    Raises:
        InputError: if it is damaged.
    """
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["step"])
    except Exception as error:
        raise InputError(
            f"{checkpoint}: not a checkpoint of a training ({error}); start again with `overwrite`"
        ) from error


def made_with() -> dict[str, str]:
    """Version of this package, and the commit if it is a clone."""
    folder = Path(nnunet_difftumor.__file__).resolve().parent.parent
    about = {"package": f"nnunet-difftumor {nnunet_difftumor.__version__}"}
    if (folder / ".git").exists():
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
        about |= {"commit": done.stdout.strip()} if done.returncode == 0 else {}
    return about


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:200] + " ..."
