"""The lengths that a DICOM file states of its elements, in every way in which DICOM writes them."""

import resource
import struct
import zlib

import numpy as np
import pytest
from dicom_series import save_dicom
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_difftumor.ct import read_ct
from nnunet_difftumor.ct.dicom.lengths import check_lengths
from nnunet_difftumor.errors import InputError

EXPLICIT, IMPLICIT, BIG, JPEG = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.90",
)
DEFLATED = "1.2.840.10008.1.2.1.99"
WITHOUT = 0xFFFFFFFF


def element(group, number, kind, value, *, order="<", implicit=False, length=None):
    length = len(value) if length is None else length
    tag = struct.pack(f"{order}HH", group, number)
    if implicit:
        return tag + struct.pack(f"{order}I", length) + value
    if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return tag + kind + b"\0\0" + struct.pack(f"{order}I", length) + value
    return tag + kind + struct.pack(f"{order}H", length) + value


def mark(number, value=b"", *, order="<", length=None):
    return struct.pack(f"{order}HHI", 0xFFFE, number, len(value) if length is None else length) + value


def written(path, syntax, *elements):
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    path.write_bytes(bytes(128) + b"DICM" + element(2, 0x10, b"UI", uid) + b"".join(elements))
    return path


def elements(**how):
    """A name, a sequence with a sequence in it, one without lengths, and pixels."""
    inner = element(0x18, 0x50, b"DS", b"1.25", **how)
    item = mark(0xE000, inner, order=how.get("order", "<"))
    nested = element(0x8, 0x1140, b"SQ", item, **how)
    marks = {"order": how.get("order", "<")}
    open_ended = mark(0xE000, nested + mark(0xE00D, **marks), length=WITHOUT, **marks) + mark(0xE0DD, **marks)
    return [
        element(0x8, 0x60, b"CS", b"CT", **how),
        element(0x8, 0x1111, b"SQ", mark(0xE000, nested, **marks), **how),
        element(0x8, 0x2112, b"SQ", open_ended, length=WITHOUT, **how),
        element(0x7FE0, 0x10, b"OW", bytes(200), **how),
    ]


SOUND = {
    "explicit": (EXPLICIT, elements()),
    "implicit": (IMPLICIT, elements(implicit=True)),
    "big endian": (BIG, elements(order=">")),
    "compressed": (
        JPEG,
        [
            element(0x8, 0x60, b"CS", b"CT"),
            element(0x7FE0, 0x10, b"OB", mark(0xE000) + mark(0xE000, bytes(40)) + mark(0xE0DD), length=WITHOUT),
        ],
    ),
    "unknown, without a length": (
        EXPLICIT,
        [
            element(9, 0x1000, b"UN", mark(0xE000, elements(implicit=True)[0]) + mark(0xE0DD), length=WITHOUT),
            element(0x7FE0, 0x10, b"OW", bytes(8)),
        ],
    ),
    "filled with zeros": (EXPLICIT, [*elements(), bytes(500)]),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_pass(tmp_path, name):
    syntax, parts = SOUND[name]
    check_lengths(written(tmp_path / "a.dcm", syntax, *parts))


@pytest.mark.parametrize(
    ("syntax", "parts", "message"),
    [
        (EXPLICIT, [element(0x10, 0x4000, b"UT", b"text", length=0xFFFFFFF0)], r"\(0010,4000\) has 4294967280 bytes"),
        (EXPLICIT, [element(0x10, 0x20, b"LO", b"text", length=60000)], "has 60000 bytes, and 4 are left"),
        (IMPLICIT, [element(0x10, 0x20, b"LO", b"text", implicit=True, length=1 << 31)], "and 4 are left"),
        (EXPLICIT, [element(0x8, 0x1111, b"SQ", mark(0xE000, b"", length=1 << 30))], "has 1073741824 bytes"),
        (EXPLICIT, [element(0x8, 0x1111, b"SQ", elements()[0])], "where an item of a sequence is expected"),
        (EXPLICIT, [element(0x8, 0x60, b"ZZ", b"CT")], "of the type b'ZZ', which DICOM has not"),
        (EXPLICIT, [element(0x8, 0x60, b"CS", b"CT")[:7]], "ends in the middle of an element"),
        (JPEG, [element(0x7FE0, 0x10, b"OB", mark(0xE000, b"", length=1 << 30), length=WITHOUT)], "has 1073741824"),
        (
            EXPLICIT,
            [element(0x8, 0x1111, b"SQ", mark(0xE000, b"", length=WITHOUT), length=WITHOUT)] * 40,
            "deep|middle",
        ),
        (DEFLATED, [zlib.compress(bytes(1 << 20))], "deflated as a whole"),
    ],
)
def test_what_is_longer_than_the_file_is_refused(tmp_path, syntax, parts, message):
    path = written(tmp_path / "a.dcm", syntax, *parts)
    with pytest.raises(InputError, match=message) as caught:
        check_lengths(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_file_that_is_cut_within_an_element_is_refused(tmp_path_factory, data):
    syntax, parts = SOUND[data.draw(st.sampled_from(["explicit", "implicit", "big endian"]))]
    path = written(tmp_path_factory.mktemp("cut") / "a.dcm", syntax, *parts)
    content, last = path.read_bytes(), len(parts[-1])
    path.write_bytes(content[: len(content) - data.draw(st.integers(1, last - 1))])
    with pytest.raises(InputError, match="no sound DICOM file"):
        check_lengths(path)


def test_a_slice_that_asks_for_gigabytes_takes_none(tmp_path):
    """GDCM takes 4 GB for this one."""
    files = save_dicom(tmp_path / "series", np.random.default_rng(0).integers(0, 1400, (6, 12, 10)))
    content = files[2].read_bytes()
    at = content.index(b"\xe0\x7f\x10\0")
    files[2].write_bytes(content[: at + 4] + struct.pack("<I", 0xFFFFFFF0) + content[at + 8 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"\(7fe0,0010\) has 4294967280 bytes"):
        read_ct(tmp_path / "series")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
