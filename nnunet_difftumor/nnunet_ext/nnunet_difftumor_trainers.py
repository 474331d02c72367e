"""What nnU-Net finds when it looks for a trainer by name: the trainers of nnunet_difftumor, imported when asked for.

nnU-Net imports every module in this folder as a top-level module, for every trainer that is not its own: this one has
a name of its own, costs nothing for other people's trainers and cannot break their lookup.
"""

import importlib
import importlib.util

# How the names of our trainers begin.
_OURS = tuple(
    f"nnUNetTrainer{name}" for name in ("DiffTumor", "SwinUNETR", "UNETR", "SegResNet", "UNetPlusPlus", "STUNet")
)


def __getattr__(name: str):
    # A child of a process that knows this folder may be a Python of another environment, without the package.
    if name.startswith(_OURS) and importlib.util.find_spec("nnunet_difftumor") is not None:
        from nnunet_difftumor.backbones import BACKBONES
        from nnunet_difftumor.trainers import module_of

        module = BACKBONES.get(name) or module_of(name)
        if module is not None:
            try:
                return getattr(importlib.import_module(module), name)
            except AttributeError as error:  # nnU-Net asks with hasattr(), which would turn it into "not found"
                raise ImportError(f"{module} could not be imported: {error}") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
