"""The Python API: light to import, the command line's names, and examples that run."""

import argparse
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from pages import REPOSITORY, blocks

import nnunet_difftumor
from nnunet_difftumor import InputError, Organ, synthesize_arrays
from nnunet_difftumor.cli.main import VERBS, module_name
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.scans.settings import SynthesisOptions
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.volume import ArrayVolume

PAGE = REPOSITORY / "docs" / "python_api.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")
# Verbs that are for a terminal only, and options that say which function is meant, or how to print.
NO_FUNCTION = {"completion", "doctor", "env", "convert"}
OF_THE_TERMINAL = {
    "synthesize": {"bank", "dataset_id", "per_case", "configuration", "dry_run"},
    "experiment": {"list"},
    "monitor": {"interval", "once"},
}
OF_THE_LIBRARY = {"report"}


def test_importing_the_package_is_quick_and_imports_neither_torch_nor_numpy():
    code = (
        "import time, sys; start = time.perf_counter(); import nnunet_difftumor\n"
        "print(time.perf_counter() - start, *(name for name in ('torch', 'numpy', 'nnunetv2') if name in sys.modules))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(3)]
    assert min(float(run.split()[0]) for run in runs) < 0.05
    assert all(len(run.split()) == 1 for run in runs)


def test_every_name_is_there_and_defined_where_the_package_says():
    assert set(nnunet_difftumor.__all__) == set(nnunet_difftumor._MODULES)
    for name in nnunet_difftumor.__all__:
        value = getattr(nnunet_difftumor, name)
        assert value.__module__ == f"nnunet_difftumor.{nnunet_difftumor._MODULES[name]}"
        assert value.__doc__
        # A sub-package of the same name would take its place as soon as it is imported.
        assert importlib.util.find_spec(f"nnunet_difftumor.{name}") is None
    with pytest.raises(AttributeError, match="no attribute 'synthesise'"):
        nnunet_difftumor.synthesise  # noqa: B018


def test_type_checkers_see_the_same_names():
    source = Path(nnunet_difftumor.__file__).read_text()
    imports = source.partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    for name, module in nnunet_difftumor._MODULES.items():
        lines = [line for line in imports.splitlines() if f"from nnunet_difftumor.{module} import " in line]
        assert any(name in line.partition(" import ")[2].split(", ") for line in lines), name


@pytest.mark.parametrize("verb", sorted(set(VERBS) - NO_FUNCTION))
def test_arguments_have_the_command_lines_names(verb):
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"nnunet_difftumor.cli.{module_name(verb)}").add_arguments(parser)
    options = {action.dest for action in parser._actions} - OF_THE_TERMINAL.get(verb, set())
    parameters = set(inspect.signature(getattr(nnunet_difftumor, module_name(verb))).parameters)
    if "options" in parameters:
        parameters = parameters - {"options"} | set(SynthesisOptions.__annotations__)
    assert options == parameters - OF_THE_LIBRARY


def test_a_bank_takes_what_the_command_line_takes_for_it():
    parameters = set(inspect.signature(nnunet_difftumor.make_bank).parameters)
    assert parameters - {"report"} == {
        *(
            "dataset_id",
            "per_case",
            "output",
            "configuration",
            "renderer",
            "weights",
            "weights_organ",
            "device",
            "seed",
        ),
        *("fast", "sampler_steps", "minimum_contrast_to_noise", "dry_run"),
    }


def body(shape=(40, 60, 60)) -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.ogrid[tuple(slice(0, size) for size in shape)]
    liver = ((z - 20) / 17) ** 2 + ((y - 30) / 26) ** 2 + ((x - 30) / 26) ** 2 <= 1
    hu = np.where(liver, 110.0, -90.0) + np.random.default_rng(0).normal(0, 12, shape)
    return hu.astype(np.float32), liver.astype(np.uint8)


def test_arrays_in_arrays_out():
    hu, labels = body()
    before = hu.copy(), labels.copy()
    made = synthesize_arrays(hu, labels, spacing_mm=(2.5, 1.5, 1.5), organ="liver", size="small", count=2, seed=3)
    assert np.array_equal(hu, before[0]) and np.array_equal(labels, before[1])
    assert len(made.specs) == 2 and made.hu.dtype == np.float32 and made.mask.dtype == bool
    assert np.array_equal(made.labels == 2, made.mask) and made.mask.any()
    assert np.array_equal(made.labels[~made.mask], labels[~made.mask])
    assert made.hu[made.mask].mean() < 110 - 8 and (made.hu != hu).sum() < 20 * made.mask.sum()
    again = ArrayVolume(hu.copy(), labels.copy(), (2.5, 1.5, 1.5))
    insert_tumors(again, made.specs, Organ("liver", (1,), 2), renderer=HandcraftedRenderer())
    assert np.array_equal(again.hu_array, made.hu)


def test_arrays_may_be_boolean_and_lists_and_what_is_wrong_is_named():
    hu, labels = body()
    made = synthesize_arrays(hu.astype(np.int16), labels.astype(bool), spacing_mm=[2.5, 1.5, 1.5], size="small")
    assert made.labels.max() == 2
    for wrong, message in (
        ({"organ_label": 7}, "`labels`: no voxel has the organ label"),
        ({"organ_label": [0, 1]}, r"`organ_label` is \[0, 1\], expected values from 1"),
        ({"contrast_hu": (1, 2, 3)}, "`contrast_hu` is"),
        ({"count": 0}, "`count` is 0"),
        ({"seed": -1}, "`seed` is -1"),
        ({"size": "huge"}, "size is 'huge'"),
        ({"renderer": "crayon"}, "`renderer` is 'crayon'"),
    ):
        with pytest.raises(InputError, match=message):
            synthesize_arrays(hu, labels, spacing_mm=(2.5, 1.5, 1.5), **wrong)
    with pytest.raises(InputError, match="the scan has shape"):
        synthesize_arrays(hu[1:], labels, spacing_mm=(2.5, 1.5, 1.5))
    with pytest.raises(InputError, match="expected whole numbers"):
        synthesize_arrays(hu, labels.astype(float), spacing_mm=(2.5, 1.5, 1.5))


@pytest.fixture
def folders(tmp_path, monkeypatch, nnunet_folders):
    """Empty folders of nnU-Net, which is where the examples work."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow(file_seconds=60)
def test_the_examples_of_the_page_run_one_after_the_other(folders, capsys):
    names: dict = {}
    for example in blocks(PAGE, "python"):
        exec(example, names)
    printed = capsys.readouterr().out
    assert "2 made, 0 failed" in printed and "Dice 1.00 of 1 cases with tumors" in printed
    assert (folders / "preview" / "mix.png").is_file() and (folders / "bank" / "bank.json").is_file()
    assert json.loads((folders / "synthetic" / "manifest.json").read_text()) == names["manifest"]


@pytest.mark.slow
def test_the_notebook_runs(folders):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folders}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
