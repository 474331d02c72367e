"""nnU-Net's preprocessed cases, whose .pkl files cannot run code here.

Beside its arrays nnU-Net keeps the properties of a case as a pickle. Its own reader does whatever that says: a dataset
that others prepared would be a program. Here it may hold what preprocessing writes, numbers, text and arrays, and is
looked through before nnU-Net reads it.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.inert_pickle import InertUnpickler, MalformedPickleError

# Up to 10,000 places of each label are listed, 32 bytes each.
_MOST_BYTES = 256 << 20
_NUMBERS = re.compile(r"[biufc]\d{1,2}")
_DTYPE_STATE = (None, None, None, -1, -1, 0)


class PreprocessedDataset(nnUNetDatasetBlosc2):
    """As nnU-Net's, for folders that come from elsewhere too."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Of files that were looked through: size and time of change.
        self._harmless: dict[str, tuple[int, int]] = {}

    def load_case(self, identifier: str):
        """As nnU-Net's.

        Raises:
            InputError: if the file of properties is missing, damaged, or holds anything but numbers, text and arrays.
        """
        path = Path(self.source_folder, f"{identifier}.pkl")
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); run `difftumor prepare` again") from error
        if self._harmless.get(identifier) != (status.st_size, status.st_mtime_ns):
            check_properties(path)
            self._harmless[str(identifier)] = (status.st_size, status.st_mtime_ns)
        return super().load_case(identifier)


def check_properties(path: Path) -> None:
    """Looks through the properties of a preprocessed case.

    Raises:
        InputError: if they are damaged, or hold anything but numbers, text and arrays.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, which no properties of a case need")
        _PropertiesUnpickler(path.read_bytes()).load()
    except (OSError, MalformedPickleError) as error:
        raise InputError(
            f"{path}: is damaged, or holds other things than nnU-Net's preprocessing writes, which could run code "
            f"({error}); it was not opened: run `difftumor prepare` again, and be wary of whoever gave it to you"
        ) from error


class _PropertiesUnpickler(InertUnpickler):
    """Knows arrays of numbers, and nothing else by name."""

    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((re.sub(r"^numpy\.core\b", "numpy._core", module), name))
        return super().find_class(module, name) if found is None else found

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, np.dtype):
            version, order, *rest = state
            if version != 3 or order not in ("<", ">", "=", "|") or tuple(rest) != _DTYPE_STATE:
                raise MalformedPickleError("a type of numbers with fields of its own")
        elif type(made) is np.ndarray:
            _, shape, dtype, _, content = state
            _check_numbers(content, dtype, shape)
        else:
            raise MalformedPickleError(f"attributes for {type(made).__name__}")
        made.__setstate__(state)

    dispatch = InertUnpickler.dispatch | {b"b"[0]: load_build}


def _check_numbers(content: Any, dtype: Any, shape: Any) -> None:
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes | bytearray):
        raise MalformedPickleError("an array without numbers")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and 0 <= size < 1 << 40 for size in shape):
        raise MalformedPickleError("an array without a shape")
    # In Python's numbers, which do not overflow.
    values = 1
    for size in shape[:32]:
        values *= size
    if len(shape) > 32 or values * dtype.itemsize != len(content):
        raise MalformedPickleError(f"{len(content)} bytes for an array of {shape[:8]}")


def _dtype(name: Any, *_: Any) -> np.dtype:
    if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
        raise MalformedPickleError("a type that is no number")
    return np.dtype(name, False, True)


def _empty(*_: Any) -> np.ndarray:
    """What an array is before its state is set."""
    return np.empty(0, "b")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    _check_numbers(content, dtype, shape)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, content: Any) -> Any:
    _check_numbers(content, dtype, ())
    return np.frombuffer(content, dtype)[0]


class _NameOnly:
    """Stands for the class that `_empty` is given."""


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NameOnly,
    ("numpy", "dtype"): _dtype,
    ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("collections", "OrderedDict"): dict,
}
