"""Crops of stored cases: what they hold, and that crop k depends on seed and k only."""

import numpy as np
import pytest
import torch
from stored_volumes import SHAPE, write_stored

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stored_cases import StoredDataset
from nnunet_difftumor.generative.training.crops import (
    BatchNumbers,
    LesionCrops,
    VolumeCrops,
    lesions_of_stage,
    split,
)
from nnunet_difftumor.generative.training.settings import AutoencoderTrainingSettings, preset

SIZE = (16, 16, 16)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    diameters = {"a": (6.0, 24.0), "b": (5.0,), "c": ()}
    return StoredDataset(write_stored(tmp_path_factory.mktemp("stored"), diameters_mm=diameters, shape=(32, 30, 34)))


def lesion_crops(stored, **more):
    settings = {"size": SIZE, "seed": 3, "jitter_mm": 4.0, "latent_shape": (2, 4, 4, 4), "diffusion_steps": 4}
    return LesionCrops(stored, lesions_of_stage(stored, organ="liver", stage="early"), **(settings | more))


def first_batches(crops, workers: int, *, start: int = 0, count: int = 3):
    numbers = BatchNumbers(2, first=lambda: start, rank=0, world_size=1)
    loader = iter(torch.utils.data.DataLoader(crops, batch_sampler=numbers, num_workers=workers))
    return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("kind", ["volumes", "lesions"])
def test_crops_do_not_depend_on_workers_nor_on_where_a_run_resumes(kind, stored):
    crops = VolumeCrops(stored, ["a", "b", "c"], size=SIZE, seed=3) if kind == "volumes" else lesion_crops(stored)
    expected = first_batches(crops, 0)
    for batches in (first_batches(crops, 1), first_batches(crops, 2)):
        for one, other in zip(expected, batches, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)
    resumed = first_batches(crops, 0, start=2, count=1)[0]
    assert all(torch.equal(resumed[key], expected[2][key]) for key in resumed)
    assert not torch.equal(expected[0]["volume"], expected[1]["volume"])


def test_joined_batch_of_two_processes_is_that_of_one():
    one = iter(BatchNumbers(4, first=lambda: 5, rank=0, world_size=1))
    two = [iter(BatchNumbers(2, first=lambda: 5, rank=rank, world_size=2)) for rank in (0, 1)]
    for _ in range(3):
        assert next(one) == next(two[0]) + next(two[1])


def test_validation_crops_are_others_with_evenly_spread_steps(stored):
    training, validation = lesion_crops(stored), lesion_crops(stored, validation=8, diffusion_steps=4)
    assert [validation[k]["step"] for k in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not torch.equal(training[0]["noise"], validation[0]["noise"])


def test_mask_is_one_lesion_near_the_middle(stored):
    crops = lesion_crops(stored)
    sizes = {lesion.voxels for case in ("a", "b") for lesion in stored.cases[case].lesions if lesion.diameter_mm < 20}
    for k in range(20):
        crop = crops[k]
        assert crop["volume"].shape == crop["tumor"].shape == (1, *SIZE)
        middle = torch.nonzero(crop["tumor"][0]).float().mean(0)
        # Jitter, and the crop moved inwards at the edge of the volume.
        assert (middle - torch.tensor(SIZE) / 2).abs().max() <= 9
        assert int(crop["tumor"].sum()) in sizes
        assert crop["volume"].min() >= -1
        assert crop["volume"].max() <= 1


def test_volume_smaller_than_the_crop_is_continued_by_its_last_voxels(tmp_path):
    stored = StoredDataset(write_stored(tmp_path, diameters_mm={"a": (6.0,)}))
    volume = VolumeCrops(stored, ["a"], size=(24, 16, 32), seed=0)[0]["volume"][0]
    assert SHAPE == (20, 24, 28)
    assert torch.equal(volume[:2], volume[2:3].expand(2, -1, -1))
    assert torch.equal(volume[22:], volume[21:22].expand(2, -1, -1))
    assert torch.equal(volume[..., :2], volume[..., 2:3].expand(-1, -1, 2))
    assert not torch.equal(volume[2], volume[3])
    whole = stored.labels("a", (0, 0, 0), SHAPE)
    padded = np.pad(whole[:, 1:21, 2:], ((3, 2), (0, 0), (0, 4)))
    np.testing.assert_array_equal(stored.labels("a", (-3, 1, 2), (25, 20, 30)), padded)


def test_stages_divide_lesions_at_20_mm(stored):
    early = lesions_of_stage(stored, organ="liver", stage="early")
    late = lesions_of_stage(stored, organ="liver", stage="late")
    assert {name: [lesion.diameter_mm for lesion in found] for name, found in early.items()} == {"a": [6.0], "b": [5.0]}
    assert {name: [lesion.diameter_mm for lesion in found] for name, found in late.items()} == {"a": [24.0]}


def test_no_lesion_of_the_stage_is_explained(tmp_path):
    stored = StoredDataset(write_stored(tmp_path, diameters_mm={"a": (6.0, 5.0)}))
    with pytest.raises(InputError, match=r"no liver lesion of at least 20 mm.*2, all of 5\.0 to 6\.0 mm"):
        lesions_of_stage(stored, organ="liver", stage="late")
    with pytest.raises(InputError, match=r"organ 'kidney': .* has liver; name it when preprocessing"):
        lesions_of_stage(stored, organ="kidney", stage="late")


def test_preprocessing_that_is_missing_or_not_finished_is_explained(tmp_path):
    with pytest.raises(InputError, match="not found; run `difftumor preprocess-generative"):
        StoredDataset(tmp_path)
    folder = write_stored(tmp_path, diameters_mm={"a": (6.0,)})
    (folder / "cases" / "a_ct.b2nd").unlink()
    with pytest.raises(InputError, match=r"incomplete.*files of case a.*again"):
        StoredDataset(folder)


def settings(**changed):
    return AutoencoderTrainingSettings(**(vars(preset(AutoencoderTrainingSettings, "tiny")) | changed))


def test_a_tenth_of_many_cases_validates():
    names = [f"case{n}" for n in range(25)]
    cases = split(names, settings(), known=names)
    assert len(cases.validation) == 2
    assert sorted([*cases.training, *cases.validation]) == sorted(names)
    assert split(names, settings(seed=1), known=names).validation != cases.validation


def test_few_cases_do_both_unless_they_are_named():
    names = ["a", "b", "c"]
    assert split(names, settings(), known=names).validation == ("a", "b", "c")
    assert split(names, settings(validation_cases=("b",)), known=names).training == ("a", "c")
    assert split(names, settings(training_cases=("b",)), known=names).validation == ("a", "c")
    # A case that is named but has no lesions, say, is no case of this training.
    assert split(["a", "b"], settings(validation_cases=("b", "c")), known=names).validation == ("b",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"training_cases": ("d",)}, "training_cases: .'d'. are not in the dataset, which has a, b, c"),
        ({"training_cases": ("a",), "validation_cases": ("a",)}, "'a'. are in both"),
        ({"validation_cases": ("a", "b", "c")}, "no case is left to train with"),
    ],
)
def test_impossible_splits_are_explained(changed, message):
    with pytest.raises(InputError, match=message):
        split(["a", "b", "c"], settings(**changed), known=["a", "b", "c"])


def test_stored_volume_is_the_windowed_ct(stored):
    import blosc2

    hu = blosc2.open(str(stored.folder / "cases" / "a_ct.b2nd"), mode="r")[:]
    np.testing.assert_allclose(stored.volume("a", (0, 0, 0), hu.shape), (hu + 175) / 212.5 - 1, atol=1e-6)
