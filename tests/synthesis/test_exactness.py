"""The device program against tumors as NumPy and SciPy made them, stage by stage and whole: 60 tumors in real CT."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import nibabel as nib
import numpy as np
import numpy_drawing
import pytest
import tiny_networks
import torch

from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer, as_diffusion
from nnunet_difftumor.synthesis.networks.modes import FAST
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.patch import Patch, site_of
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scene import patch_of
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

# Label of the liver in each scan.
SCANS = {"liver_healthy": 1, "liver_tumors": 1, "abdomen_3mm": 5}
SIZES = ("tiny", "small", "medium", "large")
# How the scan is stored and what its voxels are said to measure: axes, flips, and factors of the spacing.
VIEWS = (
    ((0, 1, 2), (1, 1, 1), (1.0, 1.0, 1.0)),
    ((2, 0, 1), (1, -1, 1), (1.0, 1.0, 1.0)),
    ((1, 2, 0), (-1, 1, -1), (1.13, 0.87, 1.0)),
    ((0, 1, 2), (-1, -1, 1), (0.71, 1.0, 1.21)),
    ((0, 2, 1), (1, 1, -1), (1.0, 1.0, 1.0)),
)


MODELS = tiny_networks.models("early", "late")


@dataclass(frozen=True, eq=False)
class Case:
    """A tumor and the part of a scan that its renderer sees."""

    patch: Patch
    spec: TumorSpec


@cache
def liver(folder, value):
    image, labels = (nib.load(folder / f"{name}.nii.gz") for name in ("ct", "labels"))
    axes = nib.orientations.io_orientation(image.affine)
    hu, mask = (np.ascontiguousarray(np.asarray(found.dataobj).T) for found in (image, labels))
    sizes = image.header.get_zooms()[::-1]
    direction = np.zeros((3, 3))
    for stored, (patient, sign) in enumerate(axes):
        direction[int(patient), 2 - stored] = sign
    return hu.astype(np.float32), (mask == value).astype(np.uint8), tuple(map(float, sizes)), direction


def stored_as(volume, view) -> ArrayVolume:
    """The same voxels along other axes, some of them backwards, and with another spacing."""
    hu, labels, spacing_mm, direction = volume
    order, signs, factors = view
    flips = tuple(slice(None, None, sign) for sign in signs)
    hu, labels = (np.ascontiguousarray(array.transpose(order)[flips]) for array in (hu, labels))
    spacing = tuple(spacing_mm[axis] * factor for axis, factor in zip(order, factors, strict=True))
    return ArrayVolume(hu, labels, spacing, direction[:, order] * signs)


def cases_of(folder, value, sizes, views) -> list[Case]:
    """A tumor of each size in each view; every third one in a scan that ends near it."""
    organ, found = Organ("liver", (1,), 2, ()), []
    for number, view in enumerate(views):
        volume = stored_as(liver(folder, value), view)
        statistics = OrganStatistics.measure(
            volume.hu_array, volume.label_array, organ=organ, spacing_mm=volume.spacing_mm
        )
        for size in sizes:
            sampler = TumorSampler(organ, ("realistic", "difftumor")[number % 2])
            tries = (sampler.sample(volume, statistics, np.random.default_rng((number, i)), size=size) for i in count())
            spec = as_diffusion(next(found for found in tries if isinstance(found, Placement)).spec)
            seen = volume
            if len(found) % 3 == 0:
                # The scan ends between the tumor's centre and what the networks see.
                last = np.ceil((np.asarray(spec.centre_mm) + 9) / volume.spacing_mm).astype(int)
                cut = tuple(slice(0, max(end, 4)) for end in last)
                seen = replace(volume, hu_array=volume.hu_array[cut], label_array=volume.label_array[cut])
            found.append(Case(patch_of(seen, spec, organ, box=renderer().region(seen, spec)), spec))
    return found


@cache
def renderer(mode="exact") -> DiffusionRenderer:
    return DiffusionRenderer(MODELS, organ="liver", threads=1, mode=mode)


@pytest.fixture(params=["6 of them", *(pytest.param(name, marks=pytest.mark.long) for name in SCANS)])
def cases(request, test_data):
    """20 of each scan, or a few that are quick and have every view but the first."""
    if request.param in SCANS:
        return _cases(test_data / request.param, SCANS[request.param], SIZES, VIEWS)
    return _cases(test_data / "abdomen_3mm", SCANS["abdomen_3mm"], ("tiny", "medium"), VIEWS[2:])


_cases = cache(cases_of)


def loaded(case: Case):
    """The program with its block of memory."""
    sketch = renderer()._view(case.spec).sketch(site_of(case.patch, case.spec), case.patch)
    (batch,) = renderer().load([sketch])
    return batch.program, batch.block


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_stages_are_those_of_numpy_on_equal_input(cases):
    assert len(cases) in (6, 20)
    for case in cases:
        job = numpy_drawing.job_of(renderer(), site_of(case.patch, case.spec), case.patch)
        program, block = loaded(case)
        with torch.inference_mode():
            volume, tumor = program.network_input(block)
            # Bit for bit, as nothing else would choose the same codes.
            np.testing.assert_array_equal(volume[0, 0].numpy(), job.volume)
            np.testing.assert_array_equal(tumor[0, 0].numpy(), job.tumor)
            encode = program.sampler.model.condition
            expected = encode(*(torch.from_numpy(values)[None, None] for values in (job.volume, job.tumor)))
            assert distance(encode(volume, tumor), expected) < 1e-4
            picture = numpy_drawing.picture_of(renderer(), job)
            tissue = program.tissue(block, torch.from_numpy(picture)[None])[0].numpy()
        assert np.abs(tissue - numpy_drawing.tissue_of(job, picture)).max() < 0.05


def test_tumors_are_those_of_numpy(cases):
    shares = []
    for case in cases:
        (found,) = renderer().render([case.patch], [case.spec])
        expected = numpy_drawing.render(renderer(), case.patch, case.spec)
        assert found.box == expected.box
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.mask, expected.mask)
        before = case.patch.part(found.box).hu
        changed = (found.hu != before) | (expected.hu != before)
        shares.append(float((np.abs(found.hu - expected.hu)[changed] <= 0.05).mean()))
        assert abs(float(found.hu[found.mask].mean() - expected.hu[found.mask].mean())) < 0.2
    assert min(shares) > 0.995, shares


def test_batches_that_are_filled_up_give_every_tumor_as_it_is_alone(cases):
    patches, specs = [case.patch for case in cases[:6]], [case.spec for case in cases[:6]]
    for mode in ("exact", FAST):
        together = renderer(mode).render(patches, specs)
        for patch, spec, found in zip(patches, specs, together, strict=True):
            (alone,) = renderer(mode).render([patch], [spec])
            np.testing.assert_array_equal(found.labels, alone.labels)
            assert np.mean(np.abs(found.hu - alone.hu) > 0.05) < (0.005 if mode == "exact" else 0.02)
