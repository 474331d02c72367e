"""What server and workers say to each other: a JSON header and arrays, in frames of known length. Nothing is unpickled.

Every operation has a deadline, since neither side may wait for the other for ever.
"""

import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.patch import Patch, RenderedTumor
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import box_from_json, box_shape, box_to_json

_MAGIC = b"dtm1"
_PREFIX = struct.Struct("<4sIQ")  # magic, bytes of the header, bytes of the arrays
_MOST_BYTES = 4 << 30
_DTYPES = ("float32", "float64", "int16", "int32", "int64", "uint8", "uint16", "bool")


class BrokenConnectionError(ConnectionError):
    """The other side is gone, too slow, or says what cannot be understood: the connection is of no use any more."""


@dataclass(frozen=True)
class Message:
    """A header and arrays.

    Attributes:
        header: JSON-ready; `kind` says what it is.
        arrays: by name.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def encode(message: Message) -> bytes:
    """The message as one frame."""
    layout = {name: [array.dtype.name, list(array.shape)] for name, array in message.arrays.items()}
    header = json.dumps({**message.header, "arrays": layout}).encode()
    parts = [array.tobytes() for array in message.arrays.values()]
    return b"".join([_PREFIX.pack(_MAGIC, len(header), sum(map(len, parts))), header, *parts])


def send(connection: socket.socket, frame: bytes, *, timeout_s: float | None) -> None:
    """Sends a frame.

    Raises:
        BrokenConnectionError: if it cannot be sent within the time; a part of it may have been.
    """
    connection.settimeout(timeout_s)
    try:
        connection.sendall(frame)
    except OSError as error:
        raise BrokenConnectionError(f"cannot be sent ({error})") from error


def receive(connection: socket.socket, *, timeout_s: float | None) -> Message:
    """Waits for the next message.

    Raises:
        BrokenConnectionError: if none, or only a part of one, comes within the time.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    magic, header_bytes, array_bytes = _PREFIX.unpack(_exactly(connection, _PREFIX.size, until))
    if magic != _MAGIC or header_bytes + array_bytes > _MOST_BYTES:
        raise BrokenConnectionError("sent something that is no message")
    try:
        header = json.loads(bytes(_exactly(connection, header_bytes, until)))
        return Message(header, _arrays(header.pop("arrays"), _exactly(connection, array_bytes, until)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenConnectionError(f"sent a damaged message ({error})") from error


def _exactly(connection: socket.socket, count: int, until: float | None) -> bytearray:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        remaining = None if until is None else until - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise BrokenConnectionError("did not answer in time")
        connection.settimeout(remaining)
        try:
            more = connection.recv_into(view[got:])
        except OSError as error:
            raise BrokenConnectionError(f"did not answer ({error})") from error
        if not more:
            raise BrokenConnectionError("closed the connection")
        got += more
    return data


def _arrays(layout: Mapping[str, Any], data: bytearray) -> dict[str, np.ndarray]:
    arrays, first = {}, 0
    for name, (dtype, shape) in layout.items():
        if dtype not in _DTYPES:
            raise ValueError(f"array {name} of {dtype}")
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(data, dtype, count, first).reshape(shape)
        first += arrays[name].nbytes
    if first != len(data):
        raise ValueError(f"{len(data)} bytes, expected {first}")
    return arrays


def request(number: int, case: str, patch: Patch, spec: TumorSpec) -> Message:
    """Asks for one tumor."""
    header = {
        "kind": "render",
        "number": number,
        "case": case,
        "spec": spec.to_dict(),
        "box": box_to_json(patch.box),
        "organ": patch.organ.to_dict(),
        "spacing_mm": list(patch.spacing_mm),
        "scan_shape": list(patch.scan_shape),
        "direction": None if patch.direction is None else np.asarray(patch.direction).tolist(),
    }
    return Message(header, {"hu": patch.hu, "labels": patch.labels})


def requested(message: Message) -> tuple[Patch, TumorSpec]:
    """What a request asks for.

    Raises:
        ValueError, KeyError, TypeError: for a header that is none of `request`.
    """
    header = message.header
    patch = Patch(
        box_from_json(header["box"]),
        message.arrays["hu"],
        message.arrays["labels"],
        Organ.from_dict(header["organ"]),
        tuple(header["spacing_mm"]),
        tuple(header["scan_shape"]),
        None if header["direction"] is None else np.array(header["direction"]),
    )
    return patch, TumorSpec.from_dict(header["spec"])


def answer(number: int, tumor: RenderedTumor) -> Message:
    """A rendered tumor."""
    header = {"kind": "tumor", "number": number, "spec": tumor.spec.to_dict(), "box": box_to_json(tumor.box)}
    return Message(header, {"hu": tumor.hu, "labels": tumor.labels, "mask": tumor.mask})


def answered(message: Message) -> RenderedTumor:
    """The tumor of an answer.

    Raises:
        ValueError, KeyError, TypeError: for a message that is none of `answer`.
    """
    arrays, box = message.arrays, box_from_json(message.header["box"])
    shape = box_shape(box)
    if any(arrays[name].shape != shape for name in ("hu", "labels", "mask")):
        raise ValueError(f"arrays of {[arrays[name].shape for name in arrays]} for a box of {shape}")
    spec = TumorSpec.from_dict(message.header["spec"])
    return RenderedTumor(spec, box, arrays["hu"], arrays["labels"], arrays["mask"])
