"""The bank of lesions: files made elsewhere are trained on; damaged and misplaced ones are refused and counted."""

from dataclasses import replace

import numpy as np
import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pipeline.sources import BankSource
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.prepared.overlay_case import OverlayCase
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.lesion_file import write_lesion
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
from nnunet_difftumor.synthesis.scene import patch_of, rendered_in
from nnunet_difftumor.synthesis.visibility import count_faint
from nnunet_difftumor.synthesis.volume import whole

ORGAN = Organ("liver", (1,), 2)
INTENSITY = CTIntensity((-175.0, 250.0), 100.0, 40.0)
SPACING_MM = (2.0, 2.0, 2.0)


def make_case(noise_seed: int = 0) -> OverlayCase:
    z, y, x = np.ogrid[:30, :40, :40]
    organ = ((z - 15) / 13) ** 2 + ((y - 20) / 18) ** 2 + ((x - 20) / 18) ** 2 <= 1
    hu = np.where(organ, 110, -90) + np.random.default_rng(noise_seed).normal(0, 10, organ.shape)
    data = INTENSITY.to_normalized(hu.astype(np.float32))[None]
    return OverlayCase("case_a", data, organ.astype(np.int16)[None], spacing_mm=SPACING_MM, intensity=INTENSITY)


def make_lesion(case: OverlayCase, path, seed: int = 0):
    hu, labels = case.hu(whole(case.shape)), case.labels(whole(case.shape))
    statistics = OrganStatistics.measure(hu, labels, organ=ORGAN, spacing_mm=SPACING_MM)
    placement = TumorSampler(ORGAN).sample(case, statistics, np.random.default_rng(seed), size="small")
    tumor = HandcraftedRenderer().render([patch_of(case, placement.spec, ORGAN)], [placement.spec])[0]
    write_lesion(path, tumor, case)
    return tumor


@pytest.fixture
def bank(tmp_path):
    (tmp_path / "case_a").mkdir()
    return tmp_path


def source(bank, **settings) -> BankSource:
    return BankSource(DiffTumorConfig(organs=(ORGAN,), source="bank", bank_folder=str(bank), **settings))


def test_a_lesion_from_the_bank_is_the_one_that_was_rendered(bank):
    tumor = make_lesion(make_case(), bank / "case_a" / "0.lesion.npz")
    case = make_case()
    outcome = source(bank).add_tumors(case, np.random.default_rng(0))
    assert [t.spec for t in outcome.tumors] == [tumor.spec] and outcome.tumor_label == 2
    assert np.array_equal(case.labels(tumor.box) == 2, tumor.mask)
    assert np.abs(case.hu(tumor.box) - tumor.hu).max() < 1e-3


@pytest.mark.parametrize("rows", [30, 12])
def test_a_lesion_of_an_earlier_version_is_refused_outside_of_the_organ(bank, rows):
    """Its file does not say which scan it was made from; wholly and partly outside."""
    path = bank / "case_a" / "0.lesion.npz"
    tumor = make_lesion(make_case(), path)
    with np.load(path) as file:
        values = {key: file[key] for key in file.files if key != "scan_crc32"}
    np.savez_compressed(path.with_name("old"), **values)
    path.with_name("old.npz").replace(path)
    assert source(bank).add_tumors(make_case(), np.random.default_rng(0)).tumors
    case = make_case()
    labels = case.seg.base.copy()
    z, y, x = tumor.box
    labels[0, z, y.start : y.start + rows, x] = 0
    case = OverlayCase("case_a", case.data.base, labels, spacing_mm=SPACING_MM, intensity=INTENSITY)
    outcome = source(bank).add_tumors(case, np.random.default_rng(0))
    assert outcome.tumors == []
    assert "its labels beside the tumor are not those of the case" in outcome.refused[0]
    # Where the file agrees, the organ of the case decides.
    values["labels"] = np.where(values["mask"], values["labels"], case.labels(tumor.box))
    np.savez_compressed(path.with_name("old"), **values)
    path.with_name("old.npz").replace(path)
    outcome = source(bank).add_tumors(case, np.random.default_rng(0))
    assert outcome.tumors == [] and outcome.refused == ["bank: 0.lesion.npz: the mask is not in the organ of this case"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"garbage"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.unlink(), "no lesion file"),
    ],
)
def test_damaged_lesions_are_refused_with_their_reason(bank, damage, reason):
    path = bank / "case_a" / "0.lesion.npz"
    make_lesion(make_case(), path)
    damage(path)
    case = make_case()
    before = case.hu(whole(case.shape))
    outcome = source(bank).add_tumors(case, np.random.default_rng(0))
    assert not outcome.tumors and reason in outcome.refused[0]
    assert np.array_equal(case.hu(whole(case.shape)), before)


def test_a_good_lesion_is_used_although_its_neighbour_is_damaged(bank):
    make_lesion(make_case(), bank / "case_a" / "good.lesion.npz")
    (bank / "case_a" / "bad.lesion.npz").write_bytes(b"garbage")
    for seed in range(6):
        assert len(source(bank).add_tumors(make_case(), np.random.default_rng(seed)).tumors) == 1


def test_a_lesion_that_is_still_being_written_is_not_looked_at(bank):
    (bank / "case_a" / ".tmp-0123abcd-0.lesion.npz").write_bytes(b"half of it")
    outcome = source(bank).add_tumors(make_case(), np.random.default_rng(0))
    assert outcome.refused == ["bank: no lesion file for this case"]


def test_a_lesion_of_a_case_whose_labels_have_changed_is_refused(bank):
    make_lesion(make_case(), bank / "case_a" / "0.lesion.npz")
    case = make_case()
    other = OverlayCase(
        "case_a", case.data.base, np.zeros_like(case.seg.base), spacing_mm=SPACING_MM, intensity=INTENSITY
    )
    outcome = source(bank).add_tumors(other, np.random.default_rng(0))
    assert not outcome.tumors and "made from another version of the case" in outcome.refused[0]


def test_a_lesion_of_another_grid_is_refused(bank):
    make_lesion(make_case(), bank / "case_a" / "0.lesion.npz")
    case = make_case()
    other = OverlayCase("case_a", case.data.base, case.seg.base, spacing_mm=(2.0, 2.0, 1.0), intensity=INTENSITY)
    assert "made for a grid" in source(bank).add_tumors(other, np.random.default_rng(0)).refused[0]


def test_missing_bank_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        source(tmp_path / "nowhere")


def faint_and_clear(bank, *, contrasts_hu=(0.0, -60.0), edit=lambda tumor: tumor) -> None:
    """Lesion files whose tumors have these contrasts."""
    for number, contrast_hu in enumerate(contrasts_hu):
        case = make_case()
        hu, labels = case.hu(whole(case.shape)), case.labels(whole(case.shape))
        statistics = OrganStatistics.measure(hu, labels, organ=ORGAN, spacing_mm=SPACING_MM)
        sampler = TumorSampler(ORGAN, contrast_hu=(contrast_hu, contrast_hu))
        spec = sampler.sample(case, statistics, np.random.default_rng(number), size="small").spec
        tumor = rendered_in(case, spec, ORGAN, renderer=HandcraftedRenderer())
        write_lesion(bank / "case_a" / f"{number}.lesion.npz", edit(tumor), case)


@pytest.mark.parametrize("edit", [lambda tumor: tumor, lambda tumor: replace(tumor, around=None)])
def test_faint_lesions_are_taken_unless_a_contrast_is_asked_for(bank, edit):
    """Those of earlier versions too, which do not say what they were measured to."""
    faint_and_clear(bank, edit=edit)
    for seed in range(6):
        drawn = source(bank).add_tumors(make_case(), np.random.default_rng(seed))
        asked = source(bank, minimum_contrast_to_noise=1.0).add_tumors(make_case(), np.random.default_rng(seed))
        assert count_faint(drawn.tumors) == (drawn.tumors[0].spec.contrast_hu == 0) and not drawn.refused
        assert [tumor.spec.contrast_hu for tumor in asked.tumors] == [-60]
        if count_faint(drawn.tumors):
            assert asked.refused == ["bank: 0.lesion.npz: contrast is less than 1 times the noise"]


def test_a_lesion_that_changes_voxels_out_of_its_reach_is_refused(bank):
    def beyond(tumor):
        box = tuple(slice(max(0, part.start - 3), part.stop) for part in tumor.box)
        moved = tuple(slice(part.start - outer.start, None) for part, outer in zip(tumor.box, box, strict=True))
        case = make_case()
        hu, labels, mask = case.hu(box).copy(), case.labels(box).copy(), np.zeros(case.hu(box).shape, bool)
        hu[moved], labels[moved], mask[moved] = tumor.hu, tumor.labels, tumor.mask
        hu[0, 0, 0] += 100
        return replace(tumor, box=box, hu=hu, labels=labels, mask=mask)

    faint_and_clear(bank, contrasts_hu=(-60.0,), edit=beyond)
    case = make_case()
    outcome = source(bank).add_tumors(case, np.random.default_rng(0))
    assert not outcome.tumors and "1 voxels are changed beyond its reach" in outcome.refused[0]
    assert (case.labels(whole(case.shape)) != 2).all()
