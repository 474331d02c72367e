"""Headers that claim more than there is, and small files that become large: refused before memory is taken."""

import gzip
import struct
import time
import tracemalloc
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ct_files import body_hu, save

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.ct.whole_files import check_is_whole
from nnunet_difftumor.errors import InputError

# A gigabyte of zeros, as gzip and zlib.
ZEROS = bytes(1 << 20)


def gigabyte(compressor) -> bytes:
    return b"".join([*(compressor.compress(ZEROS) for _ in range(1024)), compressor.flush()])


GZIP, ZLIB = gigabyte(zlib.compressobj(9, zlib.DEFLATED, 31)), gigabyte(zlib.compressobj(9))


def claiming(path: Path, *size: int) -> Path:
    """A NIfTI file with another size in its header."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[40 : 42 + 2 * len(size)] = struct.pack(f"<{1 + len(size)}h", len(size), *size)
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


@contextmanager
def little_memory_and_time(megabytes: float = 64):
    tracemalloc.start()
    start = time.perf_counter()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20 and time.perf_counter() - start < 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", [read_ct, read_labels, check_is_whole])
def test_a_header_of_more_voxels_than_any_scan_is_refused(tmp_path, read):
    path = claiming(save(tmp_path / "ct.nii.gz", body_hu()), 32000, 32000, 32000)
    with (
        little_memory_and_time(),
        pytest.raises(InputError, match="says 32768000000000 voxels, expected"),
    ):
        read(path)


@pytest.mark.parametrize("read", [read_ct, read_labels, check_is_whole])
@pytest.mark.parametrize("size", [(1200, 1200, 1200), (1200, 1200, 1200, 1)])
def test_a_header_of_more_than_the_file_can_hold_is_refused(tmp_path, read, size):
    path = claiming(save(tmp_path / "ct.nii.gz", body_hu()), *size)
    with little_memory_and_time(), pytest.raises(InputError, match=r"which a file of \d+ bytes cannot hold"):
        read(path)


@pytest.mark.parametrize("size", [(-5, 6, 7), (0, 6, 7), (9, 8, -7)])
def test_a_size_below_1_is_refused(tmp_path, size):
    path = claiming(save(tmp_path / "ct.nii.gz", body_hu()), *size)
    with pytest.raises(InputError, match=r"ct\.nii\.gz: "):
        read_ct(path)


def test_the_limit_of_voxels_can_be_set(tmp_path, monkeypatch):
    path = save(tmp_path / "ct.nii.gz", body_hu())
    voxels = read_ct(path).hu.size
    monkeypatch.setenv("DIFFTUMOR_MOST_VOXELS", str(voxels - 1))
    with pytest.raises(InputError, match=f"says {voxels} voxels, expected at most {voxels - 1}; if that is right, set"):
        read_ct(path)
    monkeypatch.setenv("DIFFTUMOR_MOST_VOXELS", str(voxels))
    read_ct(path)
    monkeypatch.setenv("DIFFTUMOR_MOST_VOXELS", "many")
    with pytest.raises(InputError, match="DIFFTUMOR_MOST_VOXELS is 'many', expected a number"):
        read_ct(path)


def test_a_gigabyte_behind_the_voxels_is_not_read(tmp_path):
    path = save(tmp_path / "ct.nii.gz", body_hu())
    path.write_bytes(path.read_bytes() + GZIP)
    with little_memory_and_time(), pytest.raises(InputError, match="holds many bytes more than the header's"):
        read_ct(path)


@pytest.mark.parametrize("name", ["scan.mha", "scan.nrrd"])
def test_a_small_file_that_becomes_a_gigabyte_is_not_unpacked(tmp_path, name):
    """Its header says 1000 voxels."""
    path = tmp_path / name
    if path.suffix == ".mha":
        header = b"NDims = 3\nDimSize = 10 10 10\nElementType = MET_SHORT\nCompressedData = True\n"
        path.write_bytes(header + b"ElementDataFile = LOCAL\n" + ZLIB)
    else:
        header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 10 10 10\nencoding: gzip\n\n"
        path.write_bytes(header + GZIP)
    with (
        little_memory_and_time(),
        pytest.raises(InputError, match="bytes of voxels, but its header says 2000"),
    ):
        check_is_whole(path)


def test_a_claim_is_one_line_of_the_command(tmp_path, capsys):
    ct = claiming(save(tmp_path / "ct.nii.gz", body_hu()), 32000, 32000, 32000)
    mask = save(tmp_path / "organ.nii.gz", np.ones((9, 8, 7), np.uint8))
    assert (
        main(["synthesize", str(ct), "--organ-mask", str(mask), "--organ", "liver", "-o", str(tmp_path / "out")]) == 2
    )
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "32768000000000 voxels" in said and not (tmp_path / "out").exists()
