"""Synthetic tumors, with exact masks, inside nnU-Net training.

Importing this package imports neither torch nor nnunetv2.
"""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a clone the sub-packages stand beside this folder (setup.py maps them into the wheel). When Python is started
# inside the clone, this folder comes first on sys.path whatever is installed: let it find its own siblings.
_clone = _Path(__file__).resolve().parent.parent
if (_clone / "setup.py").is_file() and (_clone / "dataset_conversion" / "__init__.py").is_file():
    __path__.append(str(_clone))
