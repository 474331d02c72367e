"""A dataset of a hollow organ: prepared, and lesions of a bank in its wall."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from phantom_colon import colon

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.lesion_bank import make_bank
from nnunet_difftumor.preparation.prepare import prepare
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.spec import TumorSpec

pytestmark = pytest.mark.slow(file_seconds=30)

SPACING_MM = (2.0, 2.0, 2.0)


@pytest.fixture
def raw(nnunet_folders):
    """Two scans with the whole organ, and the name `colon`; removed afterwards."""
    folder = nnunet_folders / "raw" / "Dataset533_Colon"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(2):
        volume = colon(spacing_mm=SPACING_MM, seed=number).volume
        affine = np.diag([-2.0, -2.0, 2.0, 1.0])
        hu = nib.Nifti1Image(volume.hu_array.T.astype(np.int16), affine)
        nib.save(hu, folder / "imagesTr" / f"c{number}_0000.nii.gz")
        nib.save(
            nib.Nifti1Image(volume.label_array.T.astype(np.uint8), affine), folder / "labelsTr" / f"c{number}.nii.gz"
        )
    labels = {"background": 0, "colon": 1, "colon_tumor": 2}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    yield folder
    for name in ("raw", "preprocessed"):
        shutil.rmtree(nnunet_folders / name / folder.name, ignore_errors=True)


def test_a_bank_has_tumors_in_the_wall_of_prepared_scans(raw, tmp_path):
    said: list[str] = []
    config = DiffTumorConfig.load(
        prepare(533, spacing_mm=SPACING_MM, patch_size=(32, 32, 32), processes=1, report=said.append)
    )
    assert config.organs[0].wall_mm is None and config.organs[0].greatest_wall_mm == 5.0
    assert any("NOTE: organ colon: hollow; tumors grow in its wall (measured, at most 5 mm)" in line for line in said)
    made = make_bank(533, per_case=6, output=tmp_path / "bank", report=said.append)
    assert made.made >= 11
    lumen = colon(spacing_mm=SPACING_MM).lumen
    for path in (tmp_path / "bank").glob("*/*.lesion.npz"):
        with np.load(path) as stored:
            spec = TumorSpec.from_dict(json.loads(str(stored["spec"])))
            assert tuple(stored["grid_shape"]) == lumen.shape
            place = tuple(slice(a, a + n) for a, n in zip(stored["start"], stored["mask"].shape, strict=True))
            assert not (stored["mask"] & lumen[place]).any() and not stored["change_hu"][lumen[place]].any()
        assert 0 < spec.wall_mm <= 5.0


def test_a_wall_that_is_too_thin_names_the_case(tmp_path):
    volume = colon(spacing_mm=SPACING_MM).volume
    skin = volume.label_array & ~np.roll(volume.label_array, 1, 0)
    store, organs = StatisticsStore(tmp_path, "3d"), [Organ("colon", (1,), 2, (2,))]
    with pytest.raises(InputError, match=r"^case c1: organ colon: its mask is thinner than two voxels"):
        store.measure("c1", volume.hu_array, skin, organs=organs, spacing_mm=SPACING_MM)
    assert not store.cases("colon")
