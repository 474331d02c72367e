"""Reads PyTorch's zip files without running anything from them.

A .pt or .ckpt file holds a pickle, which may name any function to be called. Here a name is looked up in a table of
three entries, all of this module; every other name becomes an inert placeholder that records what was given to it.
"""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.inert_pickle import InertUnpickler, MalformedPickleError

# Names, sizes and settings only: those of the published files take less than 1 MB. Memory can take 100 times as much.
_MAX_PICKLE_BYTES = 8 << 20
_MOST_DIMENSIONS = 8
# Of the file's size, what its tensors may need.
_MOST_COPIES = 2
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Placeholder:
    """What stands for an object of a class that is not known here: its name, and what would have gone into it."""

    qualified_name = ""

    def __new__(cls, *arguments: Any, **named: Any) -> "Placeholder":
        made = super().__new__(cls)
        made.__dict__.update(arguments=arguments, state=None, items=[])
        return made

    def __init__(self, *arguments: Any, **named: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    def add(self, item: Any) -> None:
        self.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{self.qualified_name}>"


class _Storage(NamedTuple):
    dtype: torch.dtype
    member: str
    numel: int


class StoredTensor(NamedTuple):
    """A tensor that is still in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Checkpoint:
    """An open checkpoint file.

    Attributes:
        path: of the file.
        content: the pickle's object, with StoredTensor for tensors and Placeholder for objects of unknown classes.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self._archive = path, archive
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise InputError(f"{path}: not a PyTorch checkpoint (no data.pkl inside); expected a .ckpt or .pt file")
        self._folder = pickles[0].rpartition("/")[0]
        self._sizes: dict[str, int] = {}
        bytes_on_disk = path.stat().st_size
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{path}: {member.filename} is compressed, which PyTorch never does; file refused")
            if member.filename in self._sizes:
                raise InputError(f"{path}: {member.filename} occurs twice; file refused")
            if member.flag_bits & 1 or member.file_size != member.compress_size or member.file_size > bytes_on_disk:
                raise InputError(f"{path}: {member.filename} is encrypted or its size is wrong; file refused")
            self._sizes[member.filename] = member.file_size
        byteorder = f"{self._folder}/byteorder"
        if byteorder in self._sizes and archive.read(byteorder) != b"little":
            raise InputError(f"{path}: its numbers are not little-endian; save it again on an ordinary machine")
        if self._sizes[pickles[0]] > _MAX_PICKLE_BYTES:
            raise InputError(f"{path}: its data.pkl has {self._sizes[pickles[0]]} bytes, which no model needs; refused")
        self.content = _TensorUnpickler(archive.read(pickles[0]), self._folder).load()

    def tensors(self, stored: Mapping[str, StoredTensor]) -> dict[str, torch.Tensor]:
        """Reads some tensors, by name.

        Raises:
            InputError: as `tensor`, and if they need more memory than the file has bytes: a few may share their
                numbers, but a small file must not become many large ones.
        """
        needed = sum(math.prod(one.shape) * one.storage.dtype.itemsize for one in stored.values())
        if needed > _MOST_COPIES * self.path.stat().st_size:
            raise InputError(
                f"{self.path}: its tensors need {needed / 1e9:.3g} GB, many times what the file has; file refused"
            )
        return {name: self.tensor(one) for name, one in stored.items()}

    def tensor(self, stored: StoredTensor) -> torch.Tensor:
        """Reads one tensor.

        Raises:
            InputError: if the file holds fewer numbers than the tensor needs.
        """
        storage = stored.storage
        if storage.member not in self._sizes:
            raise InputError(f"{self.path}: {storage.member} is missing; the file is damaged, get it again")
        size = self._sizes[storage.member]
        last = stored.offset + sum((n - 1) * stride for n, stride in zip(stored.shape, stored.stride, strict=True))
        values = math.prod(stored.shape)
        if values == 0:
            return torch.empty(stored.shape, dtype=storage.dtype)
        # A stride of 0 would let a small file ask for any amount of memory.
        if size != storage.numel * storage.dtype.itemsize or last >= storage.numel or values > storage.numel:
            raise InputError(
                f"{self.path}: {storage.member} has {size} bytes, which do not fit a tensor {stored.shape} of "
                f"{storage.dtype}; the file is damaged, get it again"
            )
        with _as_damage(self.path):
            content = bytearray(self._archive.read(storage.member))
        flat = torch.frombuffer(content, dtype=storage.dtype)
        return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Opens a checkpoint written by torch.save or Lightning.

    Raises:
        InputError: for a missing file, one that is no checkpoint, is damaged or truncated, or is malformed in any way.
    """
    path = Path(path)
    if not path.is_file():
        seen = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {seen}; give files of weights (.ckpt, .pt or .safetensors)")
    with ExitStack() as stack:
        with _as_damage(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            checkpoint = Checkpoint(path, archive)
        yield checkpoint


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Whatever is raised while the file is read, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except MalformedPickleError as error:
        raise InputError(f"{path}: its data.pkl is malformed ({error}); file refused") from error
    # zipfile raises OSError at places before the beginning, and ValueErrors of several kinds at names that are no text.
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a PyTorch checkpoint of version 1.6 or later, or truncated ({error}): {_likely(path)}; get "
            "the file again"
        ) from error


def _likely(path: Path) -> str:
    """What a file that is no zip archive most likely is, by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(200).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer that Git LFS keeps in place of the file (`git lfs pull` gets it)"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, such as one that asks to log in"
    if start.startswith(b"pk\x03\x04"):
        return "it begins as one and ends too early"
    return "it is of another format"


class _TensorUnpickler(InertUnpickler):
    """Resolves no name of the file."""

    def __init__(self, content: bytes, folder: str):
        super().__init__(content)
        self._folder = folder
        self._placeholders: dict[str, type[Placeholder]] = {}

    def find_class(self, module: str, name: str) -> Any:
        qualified_name = f"{module}.{name}"
        if qualified_name in _KNOWN:
            return _KNOWN[qualified_name]
        if qualified_name not in self._placeholders:
            made = type("Placeholder", (Placeholder,), {"qualified_name": qualified_name})
            self._placeholders[qualified_name] = made
        return self._placeholders[qualified_name]

    def persistent_load(self, reference: Any) -> _Storage:
        kind, storage_type, key, _, numel = reference
        if kind != "storage" or not isinstance(key, str) or not isinstance(numel, int) or numel < 0:
            raise MalformedPickleError("unknown kind of storage")
        name = getattr(storage_type, "qualified_name", "")
        module, _, storage_name = name.rpartition(".")
        if module != "torch" or storage_name not in _DTYPES:
            raise MalformedPickleError(f"numbers of the kind {name or shown(storage_type)}")
        return _Storage(_DTYPES[storage_name], f"{self._folder}/data/{key}", numel)


def _stored_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    if len(shape) > _MOST_DIMENSIONS or len(stride) > _MOST_DIMENSIONS:
        raise MalformedPickleError(f"a tensor of {len(shape)} dimensions")
    whole = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(n, int) and 0 <= n < 1 << 63 for n in whole):
        raise MalformedPickleError("a tensor without numbers or with a negative size")
    if len(shape) != len(stride):
        raise MalformedPickleError("a tensor whose shape and stride differ in length")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(stored: Any, *_: Any) -> Any:
    return stored


class _Dictionary(dict):
    """For OrderedDict, whose order a dict has; attributes from the file are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Function:
    """A function that the file can call, but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise MalformedPickleError("attributes for a function")


_KNOWN = {
    "torch._utils._rebuild_tensor_v2": _Function(_stored_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "collections.OrderedDict": _Dictionary,
}
