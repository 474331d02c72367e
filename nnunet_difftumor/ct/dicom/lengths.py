"""Whether a DICOM file is as long as its elements say (PS3.5, section 7).

GDCM takes the memory that an element asks for before it looks at the length of the file: one flipped bit in a slice of
half a megabyte, and it takes gigabytes.
"""

import mmap
import struct
from pathlib import Path

from nnunet_difftumor.errors import InputError

_BEGIN = 132  # behind the preamble and its mark
_UNKNOWN_LENGTH = 0xFFFFFFFF
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
_TRANSFER_SYNTAX, _PIXELS = (0x0002, 0x0010), (0x7FE0, 0x0010)
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_DEEPEST = 30


def check_lengths(file: Path) -> None:
    """Checks every element of a file, in sequences too, without reading values.

    Args:
        file: begins with the preamble and mark of DICOM.

    Raises:
        InputError: an element ends behind the file, or is of no type that DICOM has; or the file is deflated as a
            whole, so that nobody knows how long it is.
    """
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _Walk(content).file()
        except (_WrongError, struct.error) as error:
            raise InputError(
                f"{file}: is no sound DICOM file ({error}); get it again, or convert the series to NIfTI with dcm2niix"
            ) from error


class _WrongError(Exception):
    pass


class _Walk:
    """Through the elements of a file.

    Args:
        content: of the file.
    """

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._at = content, _BEGIN
        self._implicit, self._order = False, "<"

    def file(self) -> None:
        syntax = self._meta()
        if syntax == _DEFLATED:
            raise _WrongError("it is deflated as a whole, which is not read")
        self._implicit, self._order = syntax == _IMPLICIT, ">" if syntax == _BIG_ENDIAN else "<"
        self._elements(len(self._content), depth=0)

    def _meta(self) -> bytes:
        """The transfer syntax; the elements of the header of the file are always explicit and little-endian."""
        syntax = b""
        while self._at < len(self._content) and self._content[self._at : self._at + 2] == b"\2\0":
            tag, _, length = self._element(len(self._content))
            if length == _UNKNOWN_LENGTH:
                raise _WrongError(f"({tag[0]:04x},{tag[1]:04x}) has no length")
            if tag == _TRANSFER_SYNTAX:
                syntax = self._content[self._at : self._at + length].strip(b"\0 ")
            self._at += length
        return syntax

    def _elements(self, end: int, *, depth: int) -> None:
        """To an end, or to the mark that ends an item without a length."""
        if depth > _DEEPEST:
            raise _WrongError(f"sequences in sequences, {depth} deep")
        while self._at < end:
            if depth == 0 and self._only_padding():
                return
            tag, kind, length = self._element(end)
            if tag == _END_OF_ITEM:
                return
            if length == _UNKNOWN_LENGTH:
                self._parts(end, kind, depth=depth, fragments=tag == _PIXELS)
            elif kind == b"SQ":
                self._parts(self._at + length, kind, depth=depth)
            else:
                self._at += length

    def _parts(self, end: int, kind: bytes, *, depth: int, fragments: bool = False) -> None:
        """The items of a sequence, or the fragments of compressed voxels."""
        # What is in an unknown element without a length is implicit, whatever the file is (PS3.5, section 6.2.2).
        before, self._implicit = self._implicit, self._implicit or kind == b"UN"
        while self._at < end:
            tag, _, length = self._element(end)
            if tag == _END_OF_SEQUENCE:
                break
            if tag != _ITEM:
                raise _WrongError(f"({tag[0]:04x},{tag[1]:04x}) stands where an item of a sequence is expected")
            if fragments:
                self._at += length
            else:
                self._elements(end if length == _UNKNOWN_LENGTH else self._at + length, depth=depth + 1)
        self._implicit = before

    def _element(self, end: int) -> tuple[tuple[int, int], bytes, int]:
        """Tag, type and length of the next one; moves to its value.

        Raises:
            _WrongError: the value ends behind `end`.
        """
        if self._at + 8 > end:
            raise _WrongError("it ends in the middle of an element")
        tag = struct.unpack_from(f"{self._order}HH", self._content, self._at)
        kind = self._content[self._at + 4 : self._at + 6]
        self._at += 8
        if self._implicit or tag in (_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE):
            kind = b""
            (length,) = struct.unpack_from(f"{self._order}I", self._content, self._at - 4)
        elif kind in _SHORT:
            (length,) = struct.unpack_from(f"{self._order}H", self._content, self._at - 2)
        elif kind in _LONG:
            (length,) = struct.unpack_from(f"{self._order}I", self._content, self._at)
            self._at += 4
        else:
            raise _WrongError(f"({tag[0]:04x},{tag[1]:04x}) is of the type {kind!r}, which DICOM has not")
        if length != _UNKNOWN_LENGTH and self._at + length > end:
            raise _WrongError(f"({tag[0]:04x},{tag[1]:04x}) has {length} bytes, and {max(0, end - self._at)} are left")
        return tag, kind, length

    def _only_padding(self) -> bool:
        """Whether zeros are all that is left, as some systems fill their last block."""
        # No element has the tag (0000,0000): the rest is looked at once, not before every element.
        return not any(self._content[self._at : self._at + 4]) and not any(self._content[self._at :])
