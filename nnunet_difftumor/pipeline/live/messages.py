"""What server and workers say to each other: JSON headers in frames of known length, and voxels in shared pages.

Nothing is unpickled. Every operation has a deadline, since neither side may wait for the other for ever.
"""

import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnunet_difftumor.json_checks import is_integer, is_number
from nnunet_difftumor.pipeline.live.pages import ALIGNMENT, Pages
from nnunet_difftumor.synthesis.networks.grid import NetworkGrid
from nnunet_difftumor.synthesis.networks.sketch import Sketch
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import Box, box_from_json, box_shape, box_to_json, box_within

_MAGIC = b"dtm2"
_PREFIX = struct.Struct("<4sI")  # magic, bytes of the header
_MOST_HEADER = 1 << 20
# What a request may ask for, far beyond any training's: voxels of the networks' grid and of the scan under it, and
# those along one axis; characters of a case's name.
_MOST_VOXELS, _LONGEST_SIDE, _LONGEST_CASE = 1 << 27, 4096, 255
# Arrays of a sketch, with the box that each fills and the types that it may have.
_ARRAYS = {
    "hu": ("box", ("float32", "int16")),
    "before": ("near", ("float32", "int16")),
    "healthy": ("around", ("bool",)),
    "organ": ("near", ("bool",)),
    "alpha": ("near", ("float32",)),
}


class BrokenConnectionError(ConnectionError):
    """The other side is gone, too slow, or says what cannot be understood: the connection is of no use any more."""


@dataclass(frozen=True)
class Message:
    """A header, and sometimes shared pages.

    Attributes:
        header: JSON-ready; `kind` says what it is.
        file: descriptor of pages that the other side has not seen yet; None: none. Who receives it has to close it.
    """

    header: Mapping[str, Any]
    file: int | None = None

    def close(self) -> None:
        """For who has no use for the pages."""
        if self.file is not None:
            os.close(self.file)


def send(connection: socket.socket, message: Message, *, timeout_s: float | None) -> None:
    """Sends a message.

    Raises:
        BrokenConnectionError: if it cannot be sent within the time; a part of it may have been.
    """
    header = json.dumps(message.header).encode()
    frame = _PREFIX.pack(_MAGIC, len(header)) + header
    connection.settimeout(timeout_s)
    try:
        sent = 0
        if message.file is not None:
            sent = socket.send_fds(connection, [frame], [message.file])
        connection.sendall(frame[sent:])
    except OSError as error:
        raise BrokenConnectionError(f"cannot be sent ({error})") from error


def receive(connection: socket.socket, *, timeout_s: float | None) -> Message:
    """Waits for the next message.

    Raises:
        BrokenConnectionError: if none, or only a part of one, comes within the time.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    files: list[int] = []
    try:
        # A descriptor comes with the first byte, and is lost where it is not asked for.
        magic, header_bytes = _PREFIX.unpack(_exactly(connection, _PREFIX.size, until, files))
        if magic != _MAGIC or header_bytes > _MOST_HEADER:
            raise BrokenConnectionError("sent something that is no message")
        header = json.loads(_exactly(connection, header_bytes, until, files))
        if not isinstance(header, dict) or len(files) > 1:
            raise BrokenConnectionError("sent something that is no message")
    except ValueError as error:
        _close(files)
        raise BrokenConnectionError(f"sent a damaged message ({error})") from error
    except BrokenConnectionError:
        _close(files)
        raise
    return Message(header, files[0] if files else None)


def _exactly(connection: socket.socket, count: int, until: float | None, files: list[int]) -> bytes:
    data = b""
    while len(data) < count:
        remaining = None if until is None else until - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise BrokenConnectionError("did not answer in time")
        connection.settimeout(remaining)
        try:
            more, came, _, _ = socket.recv_fds(connection, count - len(data), 4)
        except OSError as error:
            raise BrokenConnectionError(f"did not answer ({error})") from error
        files += came
        if not more:
            raise BrokenConnectionError("closed the connection")
        data += more
    return data


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def places(sketch: Sketch) -> tuple[dict[str, Any], int, int]:
    """Where a sketch lies in pages: its arrays as (type, shape, first byte), the answer's first byte, and the end."""
    found, at = {}, 0
    for name in _ARRAYS:
        array = getattr(sketch, name)
        found[name] = [array.dtype.name, list(array.shape), at]
        at += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return found, at, at + 4 * sketch.alpha.size


def write_sketch(sketch: Sketch, pages: Pages) -> None:
    """Puts a sketch's arrays where `places` says."""
    for name, (dtype, shape, at) in places(sketch)[0].items():
        pages.array(at, dtype, shape)[...] = getattr(sketch, name)


def request(number: int, case: str, sketch: Sketch, *, pages: int) -> dict[str, Any]:
    """The header that asks for one tumor, whose arrays lie in pages of this number."""
    arrays, answer, _ = places(sketch)
    return {
        "kind": "draw",
        "number": number,
        "case": case,
        "spec": sketch.spec.to_dict(),
        "grid": asdict(sketch.grid),
        **{name: box_to_json(getattr(sketch, name)) for name in ("box", "around", "near")},
        "pages": pages,
        "arrays": arrays,
        "answer": answer,
    }


def requested(header: Mapping[str, Any], pages: Pages) -> tuple[Sketch, np.ndarray]:
    """The sketch of a request, and where its answer goes; both lie in the pages.

    Raises:
        ValueError, KeyError, TypeError: for a header that is none of `request`, arrays that do not fit together, or a
            region that no training has.
    """
    if not (is_integer(header["number"]) and isinstance(header["case"], str) and len(header["case"]) <= _LONGEST_CASE):
        raise ValueError("no number, or no case")
    boxes = {name: _box(header[name]) for name in ("box", "around", "near")}
    # Each inside of the one before; raises where it is not.
    box_within(boxes["around"], boxes["box"])
    box_within(boxes["near"], boxes["around"])
    arrays = {}
    for name, (dtype, shape, at) in header["arrays"].items():
        box, dtypes = _ARRAYS[name]
        if dtype not in dtypes or tuple(shape) != box_shape(boxes[box]):
            raise ValueError(f"{name} of {shape} {dtype}, for a box of {box_shape(boxes[box])}")
        arrays[name] = pages.array(at, dtype, shape)
    sketch = Sketch(TumorSpec.from_dict(header["spec"]), _grid(header["grid"]), **boxes, **arrays)
    return sketch, pages.array(header["answer"], "float32", sketch.alpha.shape)


def _box(pairs: Any) -> Box:
    box = box_from_json(pairs)
    if not all(is_integer(part.start) and is_integer(part.stop) and 0 <= part.start < part.stop for part in box):
        raise ValueError(f"no box: {box}")
    if max(box_shape(box)) > _LONGEST_SIDE:
        raise ValueError(f"a box of {box_shape(box)} voxels")
    return box


def _grid(record: Mapping[str, Any]) -> NetworkGrid:
    grid = NetworkGrid(**{name: tuple(values) for name, values in record.items()})
    if any(len(values) != 3 or not all(map(is_number, values)) for values in vars(grid).values()):
        raise ValueError(f"no grid: {grid}")
    if sorted(grid.axes) != [0, 1, 2] or not all(map(is_integer, (*grid.axes, *grid.size))):
        raise ValueError(f"no grid: {grid}")
    if min(grid.size) < 1 or min(grid.spacing_mm) <= 0 or 0 in grid.step_mm:
        raise ValueError(f"no grid: {grid}")
    # The scan's voxels that it covers.
    covered = [n * abs(step) / mm for n, step, mm in zip(grid.size, grid.step_mm, grid.spacing_mm, strict=True)]
    if math.prod(grid.size) > _MOST_VOXELS or max(grid.size) > _LONGEST_SIDE:
        raise ValueError(f"a grid of {grid.size} voxels")
    if math.prod(covered) > _MOST_VOXELS or max(covered) > _LONGEST_SIDE:
        raise ValueError(f"a grid that covers {covered} voxels of the scan")
    return grid
