"""KiTS23 and KiTS19 in their own layout, against nnU-Net's own converter."""

import json

import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion import kits19, kits23
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import find_organs

# As distributed: slices along the first axis, from head to foot.
AFFINE = [[0, 0, -0.8, 100], [0, -0.8, 0, 90], [-3, 0, 0, 400], [0, 0, 0, 1]]


@pytest.fixture
def kits(tmp_path, miniature):
    """A folder with three cases; the labels of the last are missing, as for test cases."""

    def make(*, cyst):
        folder = tmp_path / "kits"
        for number in (0, 17, 210):
            case = miniature(affine=AFFINE)
            mask = case.organ.astype(int) + case.tumor
            mask[4, 8, 7] = 3 if cyst else 1
            case.save(folder / f"case_{number:05d}" / "imaging.nii.gz", case.hu)
            case.save(folder / f"case_{number:05d}" / "segmentation.nii.gz", mask, dtype=np.uint8)
        (folder / "case_00210" / "segmentation.nii.gz").unlink()
        (folder / "kits.json").write_text("[]")
        return folder

    return make


def dataset_json(dataset) -> dict:
    return json.loads((dataset / "dataset.json").read_text())


def test_kits23_gets_the_regions_and_the_reader_of_nnunets_own_converter(kits, raw, verify, report_of, tmp_path):
    from nnunetv2.dataset_conversion.Dataset220_KiTS2023 import convert_kits2023

    folder = kits(cyst=True)
    assert main(["convert", "kits23", "-i", str(folder), "-d", "221"]) == 0
    dataset = raw / "Dataset221_KiTS2023"
    verify(dataset)
    report = report_of(dataset)
    assert list(report["cases"]) == ["case_00000", "case_00017"]
    assert "segmentations of their test cases" in report["rejected"]["case_00210"]
    volumes = report["cases"]["case_00000"]["volume_ml"]
    assert volumes["kidney"] > volumes["masses"] > volumes["tumor"] > 0
    (organ,) = find_organs(dataset_json(dataset))
    assert (organ.name, organ.organ_labels, organ.tumor_label, organ.avoid_labels) == ("kidney", (1,), 2, (2, 3))

    for file in (folder / "case_00210").iterdir():
        file.unlink()
    (folder / "case_00210").rmdir()
    convert_kits2023(str(folder), 222)
    theirs = raw / "Dataset222_KiTS2023"
    for key in ("labels", "regions_class_order", "overwrite_image_reader_writer", "channel_names", "numTraining"):
        assert dataset_json(dataset)[key] == dataset_json(theirs)[key]
    for image in (theirs / "imagesTr").iterdir():
        assert image.read_bytes() == (dataset / "imagesTr" / image.name).read_bytes()


def test_kits19_has_the_regions_kidney_and_tumor(kits, raw, verify):
    dataset = kits19.convert(kits(cyst=False), 40)
    assert dataset.name == "Dataset040_KiTS2019"
    verify(dataset)
    assert dataset_json(dataset)["labels"] == {"background": 0, "kidney": [1, 2], "tumor": 2}
    (organ,) = find_organs(dataset_json(dataset))
    assert (organ.name, organ.organ_labels, organ.tumor_label) == ("kidney", (1,), 2)


def test_a_cyst_is_no_label_of_kits19(kits, raw):
    with pytest.raises(InputError, match="label values 3 are not declared"):
        kits19.convert(kits(cyst=True), 40)


def test_the_slices_come_first_for_the_reader(kits, raw):
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    dataset = kits23.convert(kits(cyst=True), 40)
    image = str(dataset / "imagesTr" / "case_00000_0000.nii.gz")
    reader = determine_reader_writer_from_dataset_json(dataset_json(dataset), image, verbose=False)
    data, properties = reader().read_images((image,))
    assert data.shape[1:] == (24, 20, 16)
    assert properties["spacing"] == pytest.approx([3, 0.8, 0.8])


def test_the_clone_of_the_challenges_repository_will_do(kits, raw, tmp_path, report_of):
    clone = tmp_path / "clone"
    clone.mkdir()
    kits(cyst=True).rename(clone / "dataset")
    assert len(report_of(kits23.convert(clone, 40))["cases"]) == 2


def test_a_folder_without_cases_is_named(tmp_path, raw):
    with pytest.raises(InputError, match="no case_NNNNN folders"):
        kits23.convert(tmp_path, 40)
