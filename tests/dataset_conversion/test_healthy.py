"""Healthy pools in every layout: crops, labels, what is rejected, and labels like those of another dataset."""

import json

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion import folder, kits23
from nnunet_difftumor.dataset_conversion.healthy import convert, new_labelling
from nnunet_difftumor.dataset_conversion.healthy_layouts import LAYOUTS, detect_layout, organ_parts
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.organs import find_organs

WIDE = {"margin_mm": 10}


@pytest.fixture
def pool(tmp_path, miniature):
    """Writes cases into a folder: CT, and masks in one file each or as values of a label map."""

    def write(case, *, masks=(), values=None, folder="pool", affine=None):
        made = miniature() if affine is None else miniature(affine=affine)
        path = tmp_path / folder / case
        made.save(path / "ct.nii.gz", made.hu)
        parts = {"organ": made.organ & ~made.tumor, "tumor": made.tumor, "none": np.zeros_like(made.organ)}
        parts["beside"] = np.roll(made.tumor, (0, 5, 6), axis=(0, 1, 2))
        for name, part in dict(masks).items():
            made.save(path / "segmentations" / f"{name}.nii.gz", parts[part], dtype=np.uint8)
        if values is not None:
            label_map = sum(value * parts[part] for part, value in values.items())
            made.save(path / "labels.nii.gz", label_map, dtype=np.uint8)
        return made

    write.folder = tmp_path / "pool"
    return write


def dataset_json(dataset) -> dict:
    return json.loads((dataset / "dataset.json").read_text())


def labels_of(dataset, case) -> nib.Nifti1Image:
    return nib.load(dataset / "labelsTr" / f"{case}.nii.gz")


def test_an_abdomenatlas_folder_becomes_a_dataset_that_nnunet_accepts(pool, raw, verify, report_of, tmp_path):
    masks = {"liver": "organ", "kidney_left": "tumor", "kidney_right": "none", "postcava": "none", "spleen": "none"}
    for case in ("BDMAP_00000001", "BDMAP_00000002"):
        made = pool(case, masks=masks)
        (pool.folder / case / "combined_labels.nii.gz").write_bytes(b"not used")
    assert detect_layout([pool.folder / "BDMAP_00000001"]) == "abdomenatlas"
    arguments = ["-i", str(pool.folder), "-d", "31", "--organs", "liver", "kidney", "--margin-mm", "10"]
    assert main(["convert", "healthy", *arguments]) == 0
    dataset = raw / "Dataset031_pool"
    verify(dataset)
    assert dataset_json(dataset)["labels"] == {
        "background": 0,
        "liver": 1,
        "liver_tumor": 2,
        "kidney": 3,
        "kidney_tumor": 4,
    }
    organs = find_organs(dataset_json(dataset))
    assert [(organ.name, organ.organ_labels, organ.tumor_label) for organ in organs] == [
        ("liver", (1,), 2),
        ("kidney", (3,), 4),
    ]
    labels = labels_of(dataset, "BDMAP_00000001")
    assert set(np.unique(labels.dataobj)) == {0, 1, 3}
    # The crop's first voxel, found in the whole scan, begins the part that the crop holds.
    image = nib.load(dataset / "imagesTr" / "BDMAP_00000001_0000.nii.gz")
    x, y, z = np.rint(np.linalg.inv(made.affine) @ image.affine[:, 3]).astype(int)[:3]
    nx, ny, nz = image.shape
    assert image.shape < made.hu.shape
    part = (slice(x, x + nx), slice(y, y + ny), slice(z, z + nz))
    np.testing.assert_array_equal(image.dataobj, made.hu[part])
    np.testing.assert_array_equal(labels.dataobj, (made.organ & ~made.tumor)[part] + 3 * made.tumor[part])
    assert image.get_data_dtype() == np.int16
    assert report_of(dataset)["rejected"] == {}


def test_a_totalsegmentator_folder_becomes_a_dataset_that_nnunet_accepts(pool, raw, verify):
    pool("s0001", masks={"liver": "organ", "gallbladder": "none", "urinary_bladder": "none"})
    assert detect_layout([pool.folder / "s0001"]) == "totalsegmentator"
    dataset = convert(pool.folder, 31, organs={"liver": None}, name="Pool", **WIDE)
    verify(dataset)
    assert dataset_json(dataset)["overwrite_image_reader_writer"] == "NibabelIOWithReorient"


def test_a_chaos_like_folder_of_label_maps_becomes_a_dataset_that_nnunet_accepts(pool, raw, verify):
    pool("1", values={"organ": 63, "tumor": 126})
    assert (
        main(
            [
                "convert",
                "healthy",
                "-i",
                str(pool.folder),
                "-d",
                "31",
                "--organs",
                "liver=63",
                "kidney=126",
                "--no-crop",
            ]
        )
        == 0
    )
    dataset = raw / "Dataset031_pool"
    verify(dataset)
    assert set(np.unique(labels_of(dataset, "1").dataobj)) == {0, 1, 3}
    image = dataset / "imagesTr" / "1_0000.nii.gz"
    assert image.read_bytes() == (pool.folder / "1" / "ct.nii.gz").read_bytes()


def test_a_btcv_like_folder_needs_no_values(pool, raw, verify):
    pool("img0001", values={"organ": 6, "tumor": 11})
    dataset = convert(pool.folder, 31, organs={"pancreas": None, "liver": None}, layout="btcv", **WIDE)
    verify(dataset)
    labels = np.asarray(labels_of(dataset, "img0001").dataobj)
    assert np.count_nonzero(labels == 3) > np.count_nonzero(labels == 1) > 0


def test_every_rejected_case_has_its_reason(pool, raw, report_of, miniature):
    pool("good", masks={"liver": "organ", "liver_tumor": "none"})
    pool("lesion", masks={"liver": "organ", "liver_lesions": "tumor"})
    pool("other_lesion", masks={"liver": "organ", "kidney_tumor": "beside"})
    pool("elsewhere", masks={"liver": "none"})
    pool("missing", masks={"spleen": "organ"})
    pool("no_masks")
    pool("unset", masks={"liver": "organ"}, affine=np.eye(4))
    case = pool("moved", masks={"liver": "organ"})
    case.save(pool.folder / "moved/segmentations/liver.nii.gz", case.organ, affine=np.diag([2.0, 2.0, 3.0, 1.0]))
    report = report_of(convert(pool.folder, 31, organs={"liver": None}, **WIDE))
    assert sorted(report["cases"]) == ["good", "other_lesion"]
    expected = {
        "lesion": "holds a lesion of the liver",
        "elsewhere": "none of liver is in the scan",
        "missing": "liver.nii.gz: no such file",
        "no_masks": "liver.nii.gz: no such file",
        "unset": "sizes in mm are unknown",
        "moved": "orientation",
    }
    assert set(report["rejected"]) == set(expected)
    for name, reason in expected.items():
        assert reason in report["rejected"][name]


def test_where_masks_overlap_the_first_organ_has_the_voxel(pool, raw):
    pool("a", masks={"stomach": "organ", "spleen": "organ", "liver": "tumor"})
    dataset = convert(pool.folder, 31, organs={"liver": None, "spleen": None, "stomach": None}, **WIDE)
    assert set(np.unique(labels_of(dataset, "a").dataobj)) == {0, 1, 3}


def test_an_organ_may_be_made_of_other_files_than_those_of_the_table(pool, raw):
    pool("a", masks={"liver_left_lobe": "organ", "liver_right_lobe": "tumor"})
    arguments = ["-i", str(pool.folder), "-d", "31", "--organs", "liver=liver_left_lobe,liver_right_lobe"]
    assert main(["convert", "healthy", *arguments]) == 0
    labels = np.asarray(labels_of(raw / "Dataset031_pool", "a").dataobj)
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"organs": {"liver": None}, "layout": "labelmap"}, "does not say what means it"),
        ({"organs": {"brain": None}}, "it knows liver, pancreas"),
        ({"organs": {"liver": ["x"]}, "layout": "btcv"}, "expected 1 to 32767"),
        ({"organs": {"liver": ["a"], "spleen": ["a"]}}, "given to both liver and spleen"),
        ({"organs": [("liver", None), ("liver", None)]}, "expected each once"),
        ({"organs": {"liver_tumor": None}}, "without background and tumors"),
        ({"organs": {"liver": None}, "margin_mm": 5}, "expected 10 or more"),
        ({"organs": {"liver": None}, "margin_mm": float("nan")}, "expected 10 or more"),
        ({"organs": {"liver": None}, "like": 99}, "expected one Dataset099_NAME"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(pool, raw, arguments, reason):
    pool("a", masks={"liver": "organ"})
    with pytest.raises(InputError, match=reason):
        convert(pool.folder, 31, **arguments)
    assert list(raw.iterdir()) == []


def test_a_folder_without_masks_is_named(pool, raw):
    pool("a")
    with pytest.raises(InputError, match="pool: no sub-folder has segmentations/"):
        convert(pool.folder, 31, organs={"liver": None})


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_part_means_two_organs_in_a_table(name):
    table = LAYOUTS[name].organs
    assert organ_parts(name, dict.fromkeys(table)) == table
    new_labelling(list(table))


def test_every_organ_of_a_new_pool_is_paired_with_its_tumor():
    names = list(LAYOUTS["totalsegmentator"].organs)
    labels = dict(new_labelling(names).labels)
    assert [organ.name for organ in find_organs({"labels": labels})] == names


class TestLikeAnotherDataset:
    """--like takes labels, reader and orientation of the dataset that gets the cases."""

    @pytest.fixture
    def target(self, tmp_path, raw, pool):
        """A dataset in which liver is 3, its tumor 1 and the spleen, without tumors, 2; stored as RAS."""
        pool("a", values={"organ": 1, "tumor": 2}, folder="target", affine=np.diag([2.0, 2.0, 3.0, 1.0]))
        return folder.convert(
            tmp_path / "target", 30, labels={"liver_tumor": [2], "spleen": [7], "liver": [1]}, name="Target"
        )

    def test_labels_and_orientation_are_those_of_the_other(self, target, pool, raw, verify):
        made = pool("b", masks={"liver": "organ", "spleen": "tumor"})
        arguments = ["-i", str(pool.folder), "-d", "31", "--organs", "liver", "spleen", "--like", "30"]
        assert main(["convert", "healthy", *arguments]) == 0
        dataset = raw / "Dataset031_pool"
        verify(dataset)
        assert dataset_json(dataset)["labels"] == dataset_json(target)["labels"]
        assert "overwrite_image_reader_writer" not in dataset_json(dataset)
        labels = labels_of(dataset, "b")
        assert nib.aff2axcodes(labels.affine) == nib.aff2axcodes(labels_of(target, "a").affine) == ("R", "A", "S")
        values = np.asarray(labels.dataobj)
        assert np.count_nonzero(values == 3) == np.count_nonzero(made.organ & ~made.tumor)
        assert np.count_nonzero(values == 2) == np.count_nonzero(made.tumor)

    def test_regions_and_reader_of_kits_are_taken(self, pool, raw, tmp_path, miniature, verify):
        case = miniature()
        case.save(tmp_path / "kits/case_00000/imaging.nii.gz", case.hu)
        case.save(tmp_path / "kits/case_00000/segmentation.nii.gz", case.organ + 1 * case.tumor)
        kits = kits23.convert(tmp_path / "kits", 30)
        pool("b", masks={"kidney_left": "organ", "kidney_right": "tumor"})
        dataset = convert(pool.folder, 31, organs={"kidney": None}, like=30)
        verify(dataset)
        for key in ("labels", "regions_class_order", "overwrite_image_reader_writer"):
            assert dataset_json(dataset)[key] == dataset_json(kits)[key]
        assert set(np.unique(labels_of(dataset, "b").dataobj)) == {0, 1}

    def test_other_organs_are_refused(self, target, pool):
        pool("b", masks={"liver": "organ"})
        with pytest.raises(InputError, match="Dataset030_Target labels liver, spleen, but `organs` names liver"):
            convert(pool.folder, 31, organs={"liver": None}, like=30)


@pytest.mark.slow
class TestRealScans:
    """Real CT in the layouts of its collections."""

    def test_a_chaos_like_scan_is_cropped_to_its_liver(self, tmp_path, raw, test_data, report_of):
        (tmp_path / "chaos" / "3").mkdir(parents=True)
        for name in ("ct.nii.gz", "labels.nii.gz"):
            (tmp_path / "chaos" / "3" / name).symlink_to(test_data / "liver_healthy" / name)
        dataset = convert(tmp_path / "chaos", 31, organs={"liver": [1]})
        whole = np.asarray(nib.load(test_data / "liver_healthy" / "labels.nii.gz").dataobj)
        assert np.count_nonzero(labels_of(dataset, "3").dataobj) == np.count_nonzero(whole == 1)
        z, y, x = report_of(dataset)["cases"]["3"]["shape"]
        assert x * y * z < 0.6 * whole.size

    def test_kidneys_of_an_ircadb_like_scan_are_a_pool(self, tmp_path, raw, test_data, report_of):
        (tmp_path / "ircadb" / "1").mkdir(parents=True)
        (tmp_path / "ircadb" / "1" / "ct.nii.gz").symlink_to(test_data / "liver_tumors" / "ct.nii.gz")
        (tmp_path / "ircadb" / "1" / "labels.nii.gz").symlink_to(test_data / "liver_tumors" / "anatomy.nii.gz")
        dataset = convert(tmp_path / "ircadb", 31, organs={"kidney": [3, 4]})
        assert 150 < report_of(dataset)["cases"]["1"]["volume_ml"]["kidney"] < 500

    def test_a_totalsegmentator_like_scan_has_every_asked_organ(self, totalsegmentator_like, tmp_path, raw, report_of):
        totalsegmentator_like(tmp_path / "ts" / "s0001")
        dataset = convert(tmp_path / "ts", 31, organs=dict.fromkeys(("liver", "kidney", "pancreas", "spleen")))
        volumes = report_of(dataset)["cases"]["s0001"]["volume_ml"]
        assert volumes["liver"] == pytest.approx(1126, rel=0.02)
        assert volumes["pancreas"] == pytest.approx(19, rel=0.05)
        assert volumes["kidney"] > 100 and volumes["spleen"] > 50
        assert not any(volumes[name] for name in volumes if name.endswith("_tumor"))
