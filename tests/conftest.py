"""Datasets that several tests share, made once per run: a prepared phantom, and real CT where there is some."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pytest
from changeable import ChangeableDataset
from filelock import FileLock
from hypothesis import settings
from shared_phantoms import NAME, make_phantom_dataset

# Everywhere else hypothesis looks for new counterexamples; in CI the same commit has to give the same result.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: with several processes, the last ones to finish are then short ones."""
    seconds: dict[Path, float] = {}
    for item in items:
        slow = item.get_closest_marker("slow")
        if slow:
            seconds[item.path] = max(seconds.get(item.path, 0), slow.kwargs.get("file_seconds", 5))
    items.sort(key=lambda item: -seconds.get(item.path, 0))


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset on which a trainer can start; nnU-Net's three variables point to its folders."""

    dataset_id: int
    raw: Path
    preprocessed: Path
    results: Path


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real CT that DIFFTUMOR_TEST_DATA names."""
    folder = os.environ.get("DIFFTUMOR_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DIFFTUMOR_TEST_DATA names no folder of real CT")
    return Path(folder).absolute()


@pytest.fixture(scope="session")
def nnunet_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """nnU-Net's folders under one root, and settings for few cores, for the whole test run."""
    root = tmp_path_factory.mktemp("nnunet")
    values = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    for folder in values.values():
        Path(folder).mkdir()
    values |= {"OMP_WAIT_POLICY": "PASSIVE", "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    with quick_preparation():
        yield root
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def quick_preparation() -> Iterator[None]:
    """Processes that prepare a dataset are forked from one that has imported nnU-Net, instead of importing it each.

    Where commands are run as commands, their processes are what they are for users.
    """
    from nnunetv2.experiment_planning import verify_dataset_integrity
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.preprocessing.preprocessors import default_preprocessor

    from nnunet_difftumor import worker_processes
    from nnunet_difftumor.preparation.preprocessing import preprocessed_cases

    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload([module.__name__ for module in (fingerprint_extractor, preprocessed_cases)])
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (verify_dataset_integrity, fingerprint_extractor, default_preprocessor, worker_processes):
            monkeypatch.setattr(module, "multiprocessing", SimpleNamespace(get_context=lambda method: forkserver))
        yield


@pytest.fixture(scope="session")
def prepared_phantom(nnunet_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Six coarse phantoms, two of them with real tumors, prepared with a small patch.

    With several processes the first one that needs them makes them, and the others take a copy.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make_phantom_dataset()
        return _dataset(nnunet_folders, NAME)
    dataset = _dataset(nnunet_folders, NAME)
    shared = tmp_path_factory.getbasetemp().parent / dataset.raw.name
    with FileLock(f"{shared}.lock"):
        if not shared.is_dir():
            make_phantom_dataset()
            for folder in (dataset.raw, dataset.preprocessed):
                shutil.copytree(folder, shared.with_suffix(".part") / folder.parent.name)
            shared.with_suffix(".part").rename(shared)
        else:
            for folder in (dataset.raw, dataset.preprocessed):
                shutil.copytree(shared / folder.parent.name, folder)
            # It remembers the raw files of the process that made them, which are there as well.
            (dataset.preprocessed / "difftumor_made_from" / "hashes.json").unlink()
    return dataset


@pytest.fixture(scope="session")
def prepared_real(nnunet_folders: Path, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Three real CTs: one with liver tumors, two bases; every other column and row, prepared at a coarse spacing."""
    from nnunet_difftumor.dataset_conversion import folder
    from nnunet_difftumor.preparation.prepare import prepare

    cases = tmp_path_factory.mktemp("real")
    for name in ("abdomen_3mm", "liver_healthy", "liver_tumors"):
        (cases / name).mkdir()
        for file in ("ct.nii.gz", "labels.nii.gz"):
            step = 1 if name == "abdomen_3mm" else 2
            nib.load(test_data / name / file).slicer[::step, ::step].to_filename(cases / name / file)
    (cases / "abdomen_3mm" / "label_map.json").write_text('{"liver": 5}')
    folder.convert(cases, 502, labels={"liver": [1], "liver_tumor": [2]}, name="Real", ignore_other_labels=True)
    prepare(502, spacing_mm=(3.0, 2.0, 2.0), patch_size=(32, 48, 48), processes=1)
    return _dataset(nnunet_folders, "Dataset502_Real")


def _dataset(root: Path, name: str) -> PreparedDataset:
    return PreparedDataset(int(name[7:10]), root / "raw" / name, root / "preprocessed" / name, root / "results" / name)


@pytest.fixture
def copy_of_prepared_phantom(prepared_phantom: PreparedDataset, tmp_path: Path) -> Iterator[Path]:
    """The preprocessed phantom dataset, put back afterwards: for tests that damage it."""
    folder = prepared_phantom.preprocessed
    # Not beside it: nnU-Net would find two datasets of one number.
    backup = shutil.copytree(folder, tmp_path / "backup")
    yield folder
    shutil.rmtree(folder)
    shutil.move(backup, folder)


@pytest.fixture
def dataset(prepared_phantom: PreparedDataset, tmp_path: Path) -> Iterator[ChangeableDataset]:
    """The prepared phantoms, raw and preprocessed, put back afterwards: for tests that change them."""
    raw, folder = prepared_phantom.raw, prepared_phantom.preprocessed
    for path in (raw, folder):
        shutil.copytree(path, tmp_path / path.parent.name)
    yield ChangeableDataset(raw, folder)
    for path in (raw, folder):
        shutil.rmtree(path)
        shutil.move(tmp_path / path.parent.name, path)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An empty nnUNet_raw; the other two variables are unset."""
    folder = tmp_path / "nnUNet_raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.delenv("nnUNet_results", raising=False)
    return folder
