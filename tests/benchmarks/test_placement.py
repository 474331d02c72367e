import importlib.util
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case
from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
from nnunet_difftumor.synthesis.spec import NoRoom


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder like that of the shared scans, with one phantom."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    folder.mkdir()
    hu, labels = phantom_case(2, spacing_mm=(4.0, 3.0, 3.0))
    affine = np.diag([3.0, 3.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(hu.T.astype(np.int16), affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(labels.T, affine), folder / "labels.nii.gz")
    return folder.parent


@pytest.fixture
def placement():
    """The benchmark as a module, on the phantom's liver alone."""
    path = Path(__file__).parents[2] / "benchmarks" / "placement.py"
    specification = importlib.util.spec_from_file_location("placement_benchmark", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.PLACES = (
        module.Place("phantom", "liver", (LABELS["liver"],), ("tiny", "small")),
        module.Place("phantom", "thin liver", (LABELS["liver"],), thin=True),
    )
    return module


def run(placement, data, count=2) -> int:
    return placement.main(["--data", str(data), "--count", str(count)])


def test_the_table_has_a_row_per_organ_and_size_and_holds_its_bars(placement, data, capsys):
    assert run(placement, data) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all bars held"
    assert len(lines) == 1 + 2 * 4 + 1
    assert [line.split()[3] for line in lines[1:5]] == ["tiny", "small", "medium", "large"]
    assert lines[1].split()[4:7] == ["2", "2", "100.0"]
    assert "NoRoom" in lines[0] and "no place with enough room in the organ" in lines[-2]


def test_too_few_placed_is_a_miss(placement, data, capsys, monkeypatch):
    monkeypatch.setattr(TumorSampler, "sample", lambda *args, size, **kwargs: NoRoom("liver", size, "on strike"))
    assert run(placement, data) == 1
    printed = capsys.readouterr().out
    assert "MISSED; only 0 of 2 placed  [2 on strike]" in printed
    assert "2 rows MISSED their bar" in printed


def test_a_sampler_that_ignores_vessels_is_found_out(placement, data, capsys, monkeypatch):
    # The other way round: vessels in every second slice, of which the sampler knows nothing.
    def vessels_everywhere(hu, organ, spacing_mm, sigma_p):
        vessels = organ.copy()
        vessels[::2] = False
        return vessels

    monkeypatch.setattr(placement, "vessel_map", vessels_everywhere)
    assert run(placement, data) == 1
    assert "MISSED; 2 with vessels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: {"semi_axes_mm": tuple(2.2 * axis for axis in spec.semi_axes_mm)}, "in the band"),
        (lambda spec: {"centre_mm": (-500.0, 0.0, 0.0)}, "empty"),
    ],
    ids=["too large", "outside"],
)
def test_a_sampler_that_promises_what_it_does_not_keep_is_found_out(
    placement, data, capsys, monkeypatch, change, message
):
    real = TumorSampler.sample

    def broken(*args, **kwargs):
        found = real(*args, **kwargs)
        return found if isinstance(found, NoRoom) else replace(found, spec=replace(found.spec, **change(found.spec)))

    monkeypatch.setattr(TumorSampler, "sample", broken)
    assert run(placement, data) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["of several components", "outside the organ", "changed outside the organ"])
def test_a_renderer_that_leaves_the_organ_is_found_out(placement, data, capsys, monkeypatch, fault):
    real = placement.insert_tumors

    def broken(volume, specs, organ):
        rendered = real(volume, specs, organ)
        if fault == "changed outside the organ":
            volume.hu_array[0, 0, 0] += 1
        else:
            volume.label_array[0, 0, 0] = organ.tumor_label
        return rendered

    monkeypatch.setattr(placement, "insert_tumors", broken)
    assert run(placement, data) == 1
    assert f" {fault}" in capsys.readouterr().out


def test_a_folder_must_be_named(placement, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        placement.main(["--data", "/nowhere"])
    assert stopped.value.code == 2
    assert "DIFFTUMOR_TEST_DATA" in capsys.readouterr().err
