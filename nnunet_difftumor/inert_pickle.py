"""Reads pickles of others: nothing that they name is called, and none takes more time or memory than its own size.

`pickle.Unpickler` with a `find_class` of one's own keeps foreign functions out. It does not keep a file of 140 bytes
from asking for gigabytes (an index of its memo), or from never coming to an end (a key of tuples in tuples that share
their parts, each hashed again). This is Python's other implementation, in Python, where both can be seen.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

# Elements of a tuple that is a key.
_LONGEST_KEY = 1000
# Whose opcodes stand for objects that no such file has, or ask for memory by a number.
_REFUSED = (
    pickle.EXT1,
    pickle.EXT2,
    pickle.EXT4,
    pickle.LONG4,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
    pickle.PERSID,
)


class MalformedPickleError(ValueError):
    """A pickle that is damaged, or asks for something that files of its kind do not need."""


# The implementation in Python has no public name, and has been there, as this, since Python 3.0.
class InertUnpickler(pickle._Unpickler):
    """Reads a pickle. Subclasses say by `find_class` and `persistent_load` what stands for what it names.

    Args:
        content: the pickle.
    """

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._bytes = len(content)

    def load(self) -> Any:
        """The pickle's object.

        Raises:
            MalformedPickleError: if it cannot be read.
        """
        try:
            return super().load()
        except MalformedPickleError:
            raise
        # A malformed pickle makes the unpickler fail in many ways, none of which is a fault of this program.
        except Exception as error:
            raise MalformedPickleError(f"{type(error).__name__}: {str(error)[:200]}") from error

    def find_class(self, module: str, name: str) -> Any:
        raise MalformedPickleError(f"names {module}.{name}"[:200])

    def _refuse(self) -> None:
        raise MalformedPickleError("an opcode that files of this kind do not have")

    for opcode in _REFUSED:
        dispatch[opcode[0]] = _refuse

    def _load_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > self._bytes:
            raise MalformedPickleError(f"{size} bytes in a pickle of {self._bytes}")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(zip(map(_key, items[::2]), items[1::2], strict=True)))

    dispatch[pickle.DICT[0]] = _load_dict

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    dispatch[pickle.SETITEM[0]] = _load_setitem

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    dispatch[pickle.SETITEMS[0]] = _load_setitems

    def _load_additems(self) -> None:
        items = self.pop_mark()
        for item in items:
            self.stack[-1].add(_key(item))

    dispatch[pickle.ADDITEMS[0]] = _load_additems

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    dispatch[pickle.FROZENSET[0]] = _load_frozenset


def _key(key: Any) -> Any:
    """A key or an element of a set, if it is hashed at once."""
    nested = isinstance(key, frozenset) or (
        isinstance(key, tuple) and (len(key) > _LONGEST_KEY or any(isinstance(part, tuple | frozenset) for part in key))
    )
    if nested:
        raise MalformedPickleError("a key of tuples in tuples")
    return key
