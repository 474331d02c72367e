"""What lies inside an organ of a healthy pool and is named by nobody is refused, whatever its name."""

import json

import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.checks.inside_organs import is_anatomy, lies_inside
from nnunet_difftumor.dataset_conversion.checks.organs import PLAUSIBLE_ORGANS, check_organs
from nnunet_difftumor.dataset_conversion.healthy import convert
from nnunet_difftumor.dataset_conversion.healthy_layouts import LAYOUTS
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.label_names import is_lesion_name, is_tumor_name


@pytest.mark.parametrize(
    "name",
    [
        *("liver_tumor", "pancreatic_pdac", "pancreatic_pnet", "liver_hcc", "liver_mets", "lung_nodules", "renal_cyst"),
        *("kidney_mass", "hepatic_metastasis", "adenoma", "liver_FNH", "colon_cancer_primary", "IPMN", "GTV-1"),
    ],
)
def test_names_of_lesions_are_known(name):
    assert is_lesion_name(name) and not is_anatomy(name)


def test_names_of_anatomy_are_not_those_of_lesions():
    names = [part for layout in LAYOUTS.values() for parts in layout.organs.values() for part in parts]
    names = [str(name) for name in names] + [
        *("aorta", "postcava", "portal_vein_and_splenic_vein", "hepatic_vessel", "vertebrae_T12", "rib_left_7"),
        *("iliac_artery_left", "liver_segment_4", "inferior_vena_cava", "celiac_trunk", "gluteus_maximus_right"),
    ]
    assert all(is_anatomy(name) and not is_lesion_name(name) for name in names)
    assert not is_tumor_name("pancreatic_cyst")


def ball(shape, centre, radius):
    return sum((axis - at) ** 2 for axis, at in zip(np.indices(shape), centre, strict=True)) <= radius**2


def test_what_lies_inside_is_known_by_what_is_around_it():
    organ, inside = ball((30, 30, 30), (15, 15, 15), 10), ball((30, 30, 30), (15, 15, 17), 3)
    assert lies_inside(inside, organ) and lies_inside(inside, organ & ~inside)
    beside = ball((30, 30, 30), (15, 15, 28), 4) & ~organ
    assert beside.any() and not lies_inside(beside, organ)
    assert not lies_inside(~organ, organ)
    assert not lies_inside(np.ones_like(organ), ball((30, 30, 30), (15, 15, 15), 3))


@pytest.fixture
def pool(tmp_path, miniature):
    """Writes a case: CT, masks by name (arrays from the miniature) or a label map."""

    def write(case, *, masks=None, values=None, label_map=None):
        made, path = miniature(), tmp_path / "pool" / case
        made.save(path / "ct.nii.gz", made.hu)
        for name, part in (masks or {}).items():
            made.save(path / "segmentations" / f"{name}.nii.gz", part(made), dtype=np.uint8)
        if values is not None:
            made.save(path / "labels.nii.gz", sum(v * part(made) for v, part in values.items()), dtype=np.uint8)
        if label_map is not None:
            (path / "label_map.json").write_text(json.dumps(label_map))
        return tmp_path / "pool"

    return write


def whole(made):
    return made.organ


def around(made):
    return made.organ & ~made.tumor


def spot(made):
    return made.tumor


def beside(made):
    return np.roll(made.tumor, (5, 6), axis=(1, 2))


def nothing(made):
    return made.tumor & False


def test_a_mask_of_any_name_inside_the_organ_rejects_the_case(pool, raw, report_of, capsys):
    pool("clean", masks={"liver": whole, "dark_area": nothing, "spleen": beside})
    pool("drawn_over", masks={"liver": whole, "dark_area": spot})
    pool("left_out", masks={"liver": around, "finding-3": spot})
    pool("word", masks={"liver": whole, "liver_hcc": beside})
    folder = pool("beside", masks={"liver": whole, "dark_area": beside})
    assert main(["convert", "healthy", "-i", str(folder), "-d", "31", "--organs", "liver", "--margin-mm", "10"]) == 0
    report = report_of(raw / "Dataset031_pool")
    assert sorted(report["cases"]) == ["beside", "clean"]
    for case in ("drawn_over", "left_out"):
        assert "lies inside the liver and is none of its known parts" in report["rejected"][case]
    assert "name it: liver=liver,dark_area" in report["rejected"]["drawn_over"]
    assert "holds a lesion of the liver" in report["rejected"]["word"]
    named = {"liver": ["liver", "dark_area"]}
    (folder / "left_out" / "segmentations" / "finding-3.nii.gz").rename(
        folder / "left_out" / "segmentations" / "dark_area.nii.gz"
    )
    for case in ("word", "clean", "beside", "drawn_over"):
        (folder / case).rename(folder.parent / case)
    again = report_of(convert(folder, 32, organs=named, margin_mm=10))
    assert sorted(again["cases"]) == ["left_out"]
    assert again["cases"]["left_out"]["volume_ml"] == report["cases"]["clean"]["volume_ml"]


def test_a_value_that_nobody_named_rejects_inside_the_organ_and_is_noted_elsewhere(pool, raw, report_of):
    pool("clean", values={1: whole})
    pool("lesion", values={1: around, 2: spot})
    folder = pool("spleen", values={1: whole, 3: beside})
    report = report_of(convert(folder, 31, organs={"liver": [1]}, margin_mm=10))
    assert sorted(report["cases"]) == ["clean", "spleen"]
    assert "value 2 lies inside the liver and is none of its parts" in report["rejected"]["lesion"]
    assert "liver=1,2" in report["rejected"]["lesion"]
    assert "values 3 are named by nobody and become background" in report["cases"]["spleen"]["note"]
    assert "named by nobody" not in report["cases"]["clean"]["note"]


def test_label_map_json_says_what_the_values_of_a_case_are(pool, raw, report_of):
    """Without it the spleen, here 1, would be the liver."""
    pool("usual", values={1: whole})
    pool("other", values={5: whole, 1: beside}, label_map={"liver": 5})
    folder = pool("wrong", values={5: whole}, label_map={"spleen": 5})
    report = report_of(convert(folder, 31, organs={"liver": [1]}, margin_mm=10))
    assert sorted(report["cases"]) == ["other", "usual"]
    volumes = [report["cases"][case]["volume_ml"]["liver"] for case in ("usual", "other")]
    assert volumes[0] == volumes[1] == pytest.approx(6.3, abs=1)
    assert "spleen is not among the labels liver" in report["rejected"]["wrong"]


def test_a_mask_file_layout_has_no_use_for_label_map_json(pool, raw):
    folder = pool("a", masks={"liver": whole}, label_map={"liver": 5})
    with pytest.raises(InputError, match=r"label_map\.json: is for label maps"):
        convert(folder, 31, organs={"liver": None}, margin_mm=10)


class TestPlausibleOrgans:
    """Volume, and one tissue within the organ."""

    @pytest.fixture
    def scan(self):
        """A liver of 1150 ml at 110 HU in the right half of a body of 40 HU in air, and its mask."""
        hu = np.full((40, 60, 60), 40.0) + np.random.default_rng(0).normal(0, 15, (40, 60, 60))
        hu[:, :4] = hu[:, -4:] = -1000
        liver = ball(hu.shape, (18, 26, 20), 14)
        hu[liver] += 70
        return hu, liver

    def check(self, hu, mask, *, spacing_mm=(5.0, 4.5, 4.5), organ="liver"):
        labels, organs = mask.astype(np.uint8), {organ: (1,)}
        return check_organs(hu, labels, organs, spacing_mm=spacing_mm, where="case")

    def test_a_right_mask_has_no_note(self, scan):
        assert self.check(*scan) == ""

    @pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
    def test_a_flipped_mask_is_refused(self, scan, axes):
        with pytest.raises(InputError, match=r"case: .*seems to be flipped"):
            self.check(scan[0], np.flip(scan[1], axes))

    def test_a_volume_below_the_usual_is_noted(self, scan):
        note = self.check(*scan, spacing_mm=(2.0, 2.0, 2.0))
        assert note.startswith("liver of 92.1") and "usual are 600 to 3000" in note

    def test_a_volume_that_no_organ_has_is_refused(self, scan):
        with pytest.raises(InputError, match=r"case: liver of 1151\d\.\d ml, usual are 600 to 3000; .*voxel size"):
            self.check(*scan, spacing_mm=(10.0, 10.0, 10.0))

    def test_every_organ_of_the_layouts_has_limits(self):
        assert set(LAYOUTS["totalsegmentator"].organs) <= set(PLAUSIBLE_ORGANS)
