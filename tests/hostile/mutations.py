"""Damaged and hostile inputs: sound ones with something changed, from a seed."""

import json
import struct
from collections.abc import Callable

import numpy as np

VALUES = (
    None, True, False, -1, 0, 1, 3, 1e300, -1e300, 0.5, 10**40, 1 << 31, (1 << 63) - 1, "", "x" * 9000, "../../out",
    "/etc/passwd", "\0", "é" * 300, [], {}, [[[[]]]], [0] * 5000, {"a": {"a": {}}}, float("nan"), float("inf"),
)  # fmt: skip
TEXTS = (
    b"[" * 50_000, b'{"a":' * 20_000, b"9" * 5000, b"", b"\xff\xfe\0\0", b"null", b"[]", b'"text"', b"{}", b"NaN",
)  # fmt: skip
EXTREMES = (0, 1, 127, 128, 255, 1 << 15, (1 << 15) - 1, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 62, (1 << 64) - 1)
Change = Callable[[bytes, np.random.Generator], bytes]


def changed_json(content: bytes, random: np.random.Generator) -> bytes:
    """One or a few values, keys or all of a JSON file."""
    if random.random() < 0.15:
        return TEXTS[random.integers(len(TEXTS))] if random.random() < 0.7 else changed_bytes(content, random)
    made = json.loads(content)
    for _ in range(int(random.integers(1, 4))):
        place = made
        while isinstance(place, dict | list) and place:
            key = list(place)[random.integers(len(place))] if isinstance(place, dict) else random.integers(len(place))
            if isinstance(place[key], dict | list) and place[key] and random.random() < 0.85:
                place = place[key]
                continue
            kind = random.random()
            if kind < 0.15:
                del place[key]
            elif kind < 0.25 and isinstance(place, dict):
                place[f"{key}x"] = place.pop(key)
            else:
                place[key] = VALUES[random.integers(len(VALUES))]
            break
    return json.dumps(made).encode()


def changed_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Flipped, cut, doubled, moved or extreme bytes."""
    made = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        if not made:
            break
        at, kind = int(random.integers(len(made))), random.integers(6)
        if kind == 0:
            made[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del made[at:]
        elif kind == 2:
            made[at : at + 8] = struct.pack("<Q", EXTREMES[random.integers(len(EXTREMES))])
        elif kind == 3:
            made[at : at + 4] = struct.pack(">I", EXTREMES[random.integers(len(EXTREMES))] % (1 << 32))
        elif kind == 4:
            part = made[at : at + int(random.integers(1, 400))]
            made[at:at] = part
        else:
            del made[at : at + int(random.integers(1, 400))]
    return bytes(made)


def changed_beginning(content: bytes, random: np.random.Generator) -> bytes:
    """As `changed_bytes`, in the first 400 bytes, where headers are."""
    return changed_bytes(content[:400], random) + content[400:]
