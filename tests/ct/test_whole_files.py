"""Files are read to their last byte: what is damaged at its end, or holds more or less than it says, is refused."""

import gzip
import json
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from ct_files import body_hu, save

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.ct.whole_files import check_is_whole
from nnunet_difftumor.errors import InputError


def flipped_bit(content: bytes) -> bytes:
    """One bit of a voxel, in a stream that is stored without compression."""
    stored = bytearray(gzip.compress(gzip.decompress(content), 0))
    stored[len(stored) // 2] ^= 0x40
    return bytes(stored)


DAMAGES = {
    "checksum": lambda content: content[:-6] + bytes([content[-6] ^ 0xFF]) + content[-5:],
    "length": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "no trailer": lambda content: content[:-8],
    "half a trailer": lambda content: content[:-3],
    "one bit": flipped_bit,
    "garbage behind": lambda content: content + b"<html>",
    "more voxels": lambda content: gzip.compress(gzip.decompress(content) + bytes(9 * 8 * 2)),
    "a slice less": lambda content: gzip.compress(gzip.decompress(content)[: -9 * 8 * 2]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stream_is_refused(tmp_path, damage):
    path = save(tmp_path / "ct.nii.gz", body_hu())
    check_is_whole(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for read in (read_ct, read_labels, check_is_whole):
        with pytest.raises(InputError, match=r"ct\.nii\.gz: .*damaged"):
            read(path)


def test_two_gzip_members_are_one_file(tmp_path):
    path = save(tmp_path / "ct.nii.gz", body_hu())
    before, raw = read_ct(path), gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    np.testing.assert_array_equal(read_ct(path).hu, before.hu)


@pytest.mark.parametrize("more", [-100, 100])
def test_a_plain_file_of_another_length_is_refused(tmp_path, more):
    path = save(tmp_path / "ct.nii", body_hu())
    content = path.read_bytes()
    path.write_bytes(content[:more] if more < 0 else content + bytes(more))
    with pytest.raises(InputError, match=r"ct\.nii: .*damaged"):
        read_ct(path)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
def test_other_formats_are_whole_or_refused(tmp_path, ending, compressed):
    path = tmp_path / f"ct{ending}"
    image = SimpleITK.GetImageFromArray(body_hu().astype(np.int16))
    SimpleITK.WriteImage(image, str(path), compressed)
    check_is_whole(path)
    content = path.read_bytes()
    voxel = len(content) - 40
    damages = [content[:-3], content[: len(content) // 2], content + b"<html>"]
    if compressed:
        damages.append(content[:voxel] + bytes([content[voxel] ^ 0x10]) + content[voxel + 1 :])
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"ct{ending}: .*damaged"):
            check_is_whole(path)


def test_a_header_of_another_size_is_refused(tmp_path):
    path = tmp_path / "ct.mha"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(body_hu().astype(np.int16)), str(path), True)
    path.write_bytes(path.read_bytes().replace(b"DimSize = 7 8 9", b"DimSize = 7 8 8"))
    with pytest.raises(InputError, match="holds 1008 bytes of voxels, but its header says 896"):
        check_is_whole(path)


def test_voxels_that_begin_inside_of_the_header_are_refused(tmp_path):
    """nibabel and ITK take other voxels then."""
    path = save(tmp_path / "ct.nii", body_hu())
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, 0.0)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"voxels begin at byte 0, inside of the header of 348 bytes"):
        read_ct(path)


def test_nifti_2_and_big_endian_files_are_whole(tmp_path):
    for name, header in (("two", nib.Nifti2Header()), ("big", nib.Nifti1Header(endianness=">"))):
        path = save(tmp_path / f"{name}.nii.gz", body_hu(), header=header)
        image_type = nib.Nifti2Image if name == "two" else nib.Nifti1Image
        image = nib.load(path)
        nib.save(image_type(np.asarray(image.dataobj), None, image.header), path)
        np.testing.assert_array_equal(read_ct(path).hu, body_hu().T)


def test_the_command_rejects_damaged_cases_and_takes_the_others(tmp_path, raw):
    for case in ("good", "checksum", "no trailer", "one bit"):
        folder = tmp_path / "in" / case.replace(" ", "_")
        folder.mkdir(parents=True)
        hu, labels = body_hu(), np.zeros((9, 8, 7), np.uint8)
        labels[2:5, 2:5, 2:5], hu[2:5, 2:5, 2:5] = 1, 110
        path = save(folder / "ct.nii.gz", hu)
        save(folder / "labels.nii.gz", labels, dtype=np.uint8)
        if case != "good":
            path.write_bytes(DAMAGES[case](path.read_bytes()))
    assert main(["convert", "folder", "-i", str(tmp_path / "in"), "-d", "7", "--labels", "liver=1"]) == 0
    report = json.loads((raw / "Dataset007_in" / "conversion_report.json").read_text())
    assert list(report["cases"]) == ["good"]
    assert all("damaged" in reason for reason in report["rejected"].values()) and len(report["rejected"]) == 3
