"""Names of trainers that are near to one that is not there; nothing is imported to find them."""

import ast
import difflib
import os
from collections.abc import Iterator
from pathlib import Path

import nnunetv2

from nnunet_difftumor.backbones import BACKBONES


def nearest_trainers(name: str, most: int = 3) -> list[str]:
    """Of nnU-Net, of the folders that nnUNet_extTrainer names and of this package; the most similar first."""
    known = [*_defined_names(), *BACKBONES]
    return difflib.get_close_matches(name, known, most, cutoff=0.3) or ["nnUNetTrainer"]


def _defined_names() -> Iterator[str]:
    folders = [path for path in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if path]
    for folder in (Path(nnunetv2.__path__[0]) / "training" / "nnUNetTrainer", *map(Path, folders)):
        for path in folder.rglob("*.py"):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, OSError):
                continue
            yield from (node.name for node in tree.body if isinstance(node, ast.ClassDef) and "Trainer" in node.name)
