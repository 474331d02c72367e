"""What the page on own data says to do with a tilted gantry helps."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion.folder import convert
from nnunet_difftumor.errors import InputError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_data.md"


@pytest.fixture
def tilted(tmp_path, miniature):
    """A case whose slices are shifted by a gantry tilted by 15 degrees, and where its tumor is, in RAS+ mm."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3], affine[1, 2] = (-20, -30, 40), 3 * np.tan(np.radians(15))
    made, case = miniature(), tmp_path / "in" / "a"
    case.mkdir(parents=True)
    for name, values in (("ct", made.hu.astype(np.int16)), ("labels", (made.organ + 1 * made.tumor).astype(np.uint8))):
        nib.save(nib.Nifti1Image(values, affine), case / f"{name}.nii.gz")
    return case, nib.affines.apply_affine(affine, np.argwhere(made.tumor).mean(0)), made


def test_a_tilted_scan_is_refused_and_taken_after_the_pages_lines(tilted, raw, monkeypatch, report_of):
    case, tumor_mm, made = tilted
    with pytest.raises(InputError, match=r"angle of 75\.0 degrees.*docs/own_data\.md, Tilted gantry"):
        convert(case.parent, 7, labels={"liver": [1], "tumor": [2]})
    monkeypatch.chdir(case)
    block = re.search(r"^## Tilted gantry$.*?^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    exec(compile(block[1], str(PAGE), "exec"), {})
    names = ["--ct-name", "ct_straight.nii.gz", "--labels-name", "labels_straight.nii.gz"]
    assert (
        main(["convert", "folder", "-i", "..", "-d", "7", "--name", "A", *names, "--labels", "liver=1", "tumor=2"]) == 0
    )
    dataset = raw / "Dataset007_A"
    labels = nib.load(dataset / "labelsTr" / "a.nii.gz")
    values = np.asarray(labels.dataobj)
    # The same voxel size, hence volumes, and the tumor where it was.
    assert np.count_nonzero(values == 1) == pytest.approx(np.count_nonzero(made.organ & ~made.tumor), rel=0.1)
    found_mm = nib.affines.apply_affine(labels.affine, np.argwhere(values == 2).mean(0))
    np.testing.assert_allclose(found_mm, tumor_mm, atol=1.0)
    hu = nib.load(dataset / "imagesTr" / "a_0000.nii.gz").get_fdata()
    assert np.median(hu[values == 1]) == pytest.approx(100, abs=8) and hu.min() == -1024
    assert report_of(dataset)["rejected"] == {}
