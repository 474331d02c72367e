"""Whether an image file is whole, in the formats that nnU-Net reads: NIfTI, MetaImage (.mha) and NRRD.

Their readers stop at the last voxel, before the checksum at the end of a compressed stream, and some fill what is
missing with zeros.
"""

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO

from nnunet_difftumor.ct.nifti import SUFFIXES, check_size, read_to_the_end
from nnunet_difftumor.errors import InputError

# Bytes that are decompressed at once.
_BLOCK = 1 << 22
_MHA_BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4},
    **{"MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_DOUBLE": 8},
}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "ulonglong", "uint64", "uint64_t", "double"), 8),
}


def check_is_whole(path: Path) -> bool:
    """Reads a file to its end; files of other formats, and headers whose voxels lie elsewhere, are left alone.

    Args:
        path: .nii, .nii.gz, .mha or .nrrd.

    Returns:
        Whether it was looked at.

    Raises:
        InputError: it is truncated, its checksum is wrong, or it holds less or more than its header says.
    """
    if path.name.endswith(SUFFIXES):
        read_to_the_end(path)
        return True
    sizes = {".mha": _sizes_of_mha, ".nrrd": _sizes_of_nrrd}.get(path.suffix)
    if sizes is None:
        return False
    try:
        found = sizes(path)
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); it is damaged, truncated or of another format: get it again"
        ) from error
    if found is not None and found[0] != found[1]:
        raise InputError(
            f"{path}: holds {found[0]} bytes of voxels, but its header says {found[1]}; it is truncated or damaged: "
            "get it again"
        )
    return found is not None


def _sizes_of_mha(path: Path) -> tuple[int, int] | None:
    """Bytes that are there, up to one too many, and that should be; None if the voxels lie in other files."""
    content = path.read_bytes()
    key = b"ElementDataFile"
    if key not in content:
        raise ValueError("the header has no ElementDataFile")
    begin = content.index(b"\n", content.index(key)) + 1
    fields = _fields(content[:begin], "=")
    if fields["ElementDataFile"] != "LOCAL":
        return None
    voxels = prod(map(int, fields["DimSize"].split()))
    expected = voxels * _MHA_BYTES[fields["ElementType"]] * int(fields.get("ElementNumberOfChannels", 1))
    if fields.get("CompressedData", "False") != "True":
        return len(content) - begin, expected
    check_size(voxels, expected, path, compressed=True)
    return _inflated(content[begin:], expected), expected


def _sizes_of_nrrd(path: Path) -> tuple[int, int] | None:
    """As `_sizes_of_mha`; None also for text, and for voxels that do not begin where the header ends."""
    content = path.read_bytes()
    separator = next((end for end in (b"\n\n", b"\r\n\r\n") if end in content), None)
    if separator is None or not content.startswith(b"NRRD"):
        raise ValueError("it has no header of NRRD")
    header, stream = content.split(separator, 1)
    fields = {name.lower(): value for name, value in _fields(header, ":").items()}
    encoding = fields["encoding"].lower()
    readers: Mapping[str, Callable[[BinaryIO], BinaryIO]] = {
        "raw": lambda stream: stream,
        **dict.fromkeys(("gzip", "gz"), lambda stream: gzip.GzipFile(fileobj=stream)),
        **dict.fromkeys(("bzip2", "bz2"), bz2.BZ2File),
    }
    if {"data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"} & set(fields) or (
        encoding not in readers
    ):
        return None
    voxels = prod(map(int, fields["sizes"].split()))
    expected = voxels * _NRRD_BYTES[fields["type"].lower()]
    if encoding.startswith("g"):
        check_size(voxels, expected, path, compressed=True)
    with readers[encoding](io.BytesIO(stream)) as decoded:
        return _length(decoded, expected), expected


def _fields(header: bytes, separator: str) -> dict[str, str]:
    lines = header.decode("latin-1").splitlines()
    pairs = (line.split(separator, 1) for line in lines if separator in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def _length(stream: BinaryIO, expected: int) -> int:
    """Bytes of a stream, of which no more are read than one too many."""
    found = 0
    while found <= expected and (block := stream.read(min(_BLOCK, expected + 1 - found))):
        found += len(block)
    return found


def _inflated(stream: bytes, expected: int) -> int:
    """As `_length`, of a stream of zlib."""
    inflate, found = zlib.decompressobj(), 0
    while not inflate.eof and found <= expected:
        block = inflate.decompress(stream, _BLOCK)
        stream = inflate.unconsumed_tail
        found += len(block)
        if not block and not stream and not inflate.eof:
            raise EOFError("the compressed stream ends too early")
    if inflate.unused_data:
        raise ValueError(f"{len(inflate.unused_data)} bytes follow the compressed stream")
    return found
