"""`difftumor prepare --healthy`: cases of other datasets become bases, and nnU-Net's own trainers do not notice."""

import json
import os
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from trainer_of import trainer_of

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.dataset_conversion import phantom
from nnunet_difftumor.pictures.montage import Montage
from nnunet_difftumor.prepared.pools import PooledDataset, pools_folder
from nnunet_difftumor.prepared.statistics import StatisticsStore
from nnunet_difftumor.trainers.tiny import nnUNetTrainerDiffTumorTiny

CONFIGURATION = "nnUNetPlansDiffTumor_3d_fullres"
SAME_REQUEST = ("--spacing", "4", "3", "3", "--patch-size", "32", "32", "32")
POOL = "Dataset511_Pool"
HEALTHY = [f"{POOL}_phantom_{i:03d}" for i in range(2)]
SICK, TURNED = f"{POOL}_phantom_tumor_000", "Dataset512_Turned_phantom_000"


def prepare(*arguments: str) -> int:
    return main(["prepare", "-d", "501", "-np", "1", *SAME_REQUEST, *arguments])


def uninitialized(dataset, trainer_class, fold):
    return trainer_of(dataset.preprocessed, trainer_class, fold=fold, initialize=False)


def stock_folds(dataset) -> dict:
    """What nnU-Net's own trainer trains and validates on, for a fold, a fold that it makes itself, and all cases."""
    folds = {}
    for fold in (0, 7, "all"):
        trainer = uninitialized(dataset, nnUNetTrainer, fold)
        folds[fold] = [sorted(map(str, cases)) for cases in trainer.do_split()]
    return folds


def files(folder) -> dict:
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def pooled(prepared_phantom, tmp_path_factory):
    """The prepared phantoms with a pool of two healthy phantoms and a sick one, and one that lies otherwise."""
    folder = prepared_phantom.preprocessed
    backup = shutil.copytree(folder, tmp_path_factory.mktemp("backup") / "preprocessed")
    phantom.convert(511, name="Pool", cases=2, tumor_cases=1, seed=11, spacing_mm=(5.0, 4.0, 4.0))
    turned = phantom.convert(512, name="Turned", cases=1, tumor_cases=0, seed=12, spacing_mm=(5.0, 4.0, 4.0))
    for path in turned.glob("*/*.nii.gz"):
        nib.save(nib.as_closest_canonical(nib.load(path)), path)
    before = stock_folds(prepared_phantom)
    lines: list[str] = []
    from nnunet_difftumor.preparation.prepare import prepare

    prepare(
        501,
        spacing_mm=(4.0, 3.0, 3.0),
        patch_size=(32, 32, 32),
        healthy=[511, 512],
        processes=1,
        report=lines.append,
    )
    yield prepared_phantom, before, "\n".join(lines)
    shutil.rmtree(folder)
    shutil.move(backup, folder)
    for path in (turned, turned.with_name(POOL)):
        shutil.rmtree(path)


@pytest.mark.slow(file_seconds=100)
def test_healthy_cases_of_pools_are_bases_in_every_fold_and_nothing_else(pooled):
    dataset, _, said = pooled
    splits = load_json(str(dataset.preprocessed / "splits_final.json"))
    for split in splits:
        assert split["synthesis_bases"] == sorted([*HEALTHY, TURNED, *(f"phantom_{i:03d}" for i in range(4))])
        assert not any(case.startswith("Dataset") for case in (*split["train"], *split["val"]))
    assert f"with a lesion in a healthy pool: {SICK}" in said
    assert {*HEALTHY, TURNED} <= StatisticsStore(dataset.preprocessed, CONFIGURATION).cases("liver")


@pytest.mark.slow
def test_nnunets_own_trainer_sees_the_same_folds_as_before(pooled):
    dataset, before, _ = pooled
    assert stock_folds(dataset) == before
    assert len(before["all"][0]) == 6


@pytest.mark.slow
def test_pool_cases_are_preprocessed_as_nnunet_does_it_with_these_plans(pooled):
    dataset, _, _ = pooled
    plans = PlansManager(str(dataset.preprocessed / "nnUNetPlansDiffTumor.json"))
    configuration = plans.get_configuration("3d_fullres")
    raw = dataset.raw.with_name(POOL)
    expected, labels, properties = configuration.preprocessor_class(verbose=False).run_case(
        [str(raw / "imagesTr" / "phantom_000_0000.nii.gz")],
        str(raw / "labelsTr" / "phantom_000.nii.gz"),
        plans,
        configuration,
        str(raw / "dataset.json"),
    )
    stored = PooledDataset(str(dataset.preprocessed / CONFIGURATION), [HEALTHY[0]]).load_case(HEALTHY[0])
    assert np.array_equal(stored[0][:], expected) and np.array_equal(stored[1][:], labels)
    assert stored[3]["class_locations"].keys() == properties["class_locations"].keys()


@pytest.mark.slow
def test_training_puts_tumors_into_pool_cases(pooled, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    dataset, _, _ = pooled
    trainer = uninitialized(dataset, nnUNetTrainerDiffTumorTiny, 0)
    trainer.initialize()
    loader = trainer.get_dataloaders()[0].data_loader
    samples = [sample for number in range(20) for sample in loader.make_batch(number)["samples"]]
    in_pools = [sample for sample in samples if sample["case"] in (*HEALTHY, TURNED)]
    assert in_pools and any(sample["in_target"] for sample in in_pools)
    trainer.synthesis.config = replace(trainer.synthesis.config, mirror_axes=("head-foot",))
    assert trainer.synthesis.mirror_axes([*HEALTHY, TURNED, "phantom_000"]) == (0,)


@pytest.mark.slow
def test_preview_shows_pool_cases(pooled):
    montage = Montage(pooled[0].preprocessed, configuration="3d_fullres")
    row = list(montage.row(montage.config.organs[0], "small", columns=7))
    assert {*HEALTHY, TURNED} < {sample.case for sample in row}
    assert all(sample.panel.contour.any() for sample in row if sample.outcome.tumors)


@pytest.mark.slow
def test_pool_cases_are_held_out_for_label_free_validation(pooled):
    dataset, _, _ = pooled
    held_out = {
        case for split in load_json(str(dataset.preprocessed / "splits_final.json")) for case in split["label_free_val"]
    }
    assert {*HEALTHY, TURNED} & held_out
    validation = dataset.preprocessed / "difftumor_validation"
    for case in held_out:
        assert (validation / "specs" / f"{case}.json").is_file()
        assert (validation / CONFIGURATION / f"{case}.b2nd").is_file()


@pytest.mark.slow
def test_pool_that_lies_otherwise_is_noted(pooled):
    _, _, said = pooled
    note = next(line for line in said.splitlines() if "NOTE" in line)
    assert TURNED in note and HEALTHY[0] not in note


@pytest.mark.slow
def test_second_run_keeps_everything_without_naming_the_pools_again(pooled):
    dataset, _, _ = pooled
    before = files(pools_folder(dataset.preprocessed) / CONFIGURATION), files(dataset.preprocessed / CONFIGURATION)
    splits = (dataset.preprocessed / "splits_final.json").read_text()
    assert prepare() == 0
    assert before == (
        files(pools_folder(dataset.preprocessed) / CONFIGURATION),
        files(dataset.preprocessed / CONFIGURATION),
    )
    assert (dataset.preprocessed / "splits_final.json").read_text() == splits


@pytest.mark.slow
def test_only_what_changed_or_was_not_finished_is_made_again(pooled):
    dataset, _, _ = pooled
    pools = pools_folder(dataset.preprocessed)
    before = files(pools / CONFIGURATION)
    raw = dataset.raw.with_name(POOL) / "labelsTr"
    # One with the same content is not what has changed.
    os.utime(raw / "phantom_000.nii.gz")
    label = nib.load(raw / "phantom_001.nii.gz")
    mended = np.asarray(label.dataobj).copy()
    mended[tuple(np.argwhere(mended == 1)[0])] = 0
    nib.save(nib.Nifti1Image(mended, label.affine, label.header), raw / "phantom_001.nii.gz")
    # As if it was interrupted: a file of another case is missing.
    (pools / CONFIGURATION / f"{TURNED}.pkl").unlink()
    assert prepare("--healthy", "511") == 0
    after = files(pools / CONFIGURATION)
    assert before.keys() == after.keys()
    changed = {
        path.name.removesuffix(".b2nd").removesuffix(".pkl").removesuffix("_seg")
        for path in after
        if after[path] != before[path]
    }
    assert changed == {HEALTHY[1], TURNED}


@pytest.mark.slow
def test_a_case_that_cannot_be_used_is_named_and_the_others_are_kept(pooled, capsys):
    dataset, _, _ = pooled
    label = dataset.raw.with_name(POOL) / "labelsTr" / "phantom_000.nii.gz"
    good = label.read_bytes()
    image = nib.load(label)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] = 77
    nib.save(nib.Nifti1Image(values, image.affine, image.header), label)
    try:
        assert prepare() == 2
        error = capsys.readouterr().err
        assert str(label) in error and "[77]" in error
        assert (pools_folder(dataset.preprocessed) / CONFIGURATION / f"{HEALTHY[1]}.b2nd").is_file()
    finally:
        label.write_bytes(good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "liver": 1, "liver_tumor": 2}}, "labels are {'background': 0, 'liver': 1"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "channel_names are ['ct', 'pet']"),
        ({}, "has no cases"),
    ],
)
def test_pool_that_does_not_fit_is_refused(prepared_phantom, capsys, change, message):
    before = files(pools_folder(prepared_phantom.preprocessed))
    pool = prepared_phantom.raw.with_name("Dataset513_Other")
    for folder in ("imagesTr", "labelsTr"):
        (pool / folder).mkdir(parents=True)
    try:
        record = json.loads((prepared_phantom.raw / "dataset.json").read_text())
        (pool / "dataset.json").write_text(json.dumps({**record, **change}))
        assert prepare("--healthy", "513") == 2
        assert message in capsys.readouterr().err
        assert files(pools_folder(prepared_phantom.preprocessed)) == before
    finally:
        shutil.rmtree(pool)


@pytest.mark.parametrize(
    ("pool", "message"), [("501", "is the dataset itself"), ("888", "--healthy 888: expected one Dataset888_NAME")]
)
def test_wrong_pool_ids_are_named(prepared_phantom, capsys, pool, message):
    assert prepare("--healthy", pool) == 2
    assert message in capsys.readouterr().err
