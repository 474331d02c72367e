"""What the checks say of sound data (nothing), and how small a fault they find: the figures of docs/checks.md."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter, zoom
from scipy.spatial.transform import Rotation

from nnunet_difftumor.checks.coarse import coarse_hu, coarse_labels
from nnunet_difftumor.checks.examine import examine, organ_findings
from nnunet_difftumor.checks.hounsfield import FAT_RANGE_HU, wrong_hu
from nnunet_difftumor.checks.organ_fit import FitMeasure, misplaced_labels
from nnunet_difftumor.checks.same_scan import are_one, common_places, fingerprint
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.ct.hounsfield import check_organs_hu
from nnunet_difftumor.dataset_conversion.phantom import phantom_case
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.synthesis.organ import Organ

SPACING_MM = (4.0, 3.0, 3.0)
# As the phantom's files: x to the left, y to the back.
AFFINE = np.diag([-3.0, -3.0, 4.0, 1.0])
REAL = {
    "liver_healthy": {"liver": (1,)},
    "liver_thick": {"liver": (1,)},
    "liver_tumors": {"liver": (1,), "left kidney": (3,), "right kidney": (4,), "spleen": (5,)},
    "abdomen_3mm": {"liver": (5,), "spleen": (1,), "right kidney": (2,), "left kidney": (3,), "pancreas": (7,)},
}


@pytest.fixture(scope="module")
def phantoms() -> list[tuple[np.ndarray, np.ndarray]]:
    """HU and labels (z, y, x) of ten persons, some with tumors."""
    return [phantom_case([0, 0, person], spacing_mm=SPACING_MM, lesions=person % 3) for person in range(10)]


@pytest.fixture(scope="module")
def coarse_phantoms(phantoms):
    return [(coarse_hu(hu, AFFINE), coarse_labels(labels, AFFINE)) for hu, labels in phantoms]


def moved(mask: np.ndarray, voxels: tuple[int, int, int]) -> np.ndarray:
    padded = np.pad(mask, 10)
    return np.roll(padded, voxels, (0, 1, 2))[10:-10, 10:-10, 10:-10]


def variants(hu: np.ndarray, affine: np.ndarray):
    """The same scan: halves, the middle half, coarser ones, and stored the other way round; with affines."""
    z, y, x = hu.shape
    cuts = {
        "lower half": (slice(0, z // 2), slice(None), slice(None)),
        "upper half": (slice(z // 2, None), slice(None), slice(None)),
        "right half": (slice(None), slice(None), slice(0, x // 2)),
        "middle half": tuple(slice(n // 10, n - n // 10) for n in hu.shape),
        "a corner": (slice(0, int(0.8 * z)), slice(int(0.2 * y), None), slice(3, int(0.8 * x))),
    }
    for name, cut in cuts.items():
        yield name, hu[cut], affine
    for factor in (1.3, 2.0):
        coarser = zoom(gaussian_filter(hu, 0.3 * factor), 1 / factor, order=1, mode="nearest", grid_mode=True)
        steps = np.array(hu.shape[::-1]) / coarser.shape[::-1]
        yield f"{factor} times the voxels", coarser, affine @ np.diag([*steps, 1.0])
    yield "every other row", hu[:, ::2, ::2], affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    yield "flipped", hu[:, :, ::-1], affine @ np.diag([-1.0, 1.0, 1.0, 1.0])


@pytest.mark.slow(file_seconds=40)
def test_no_two_persons_are_one_and_every_variant_is(coarse_phantoms, phantoms):
    prints = [fingerprint(hu) for hu, _ in coarse_phantoms]
    for one in range(10):
        for other in range(one):
            assert not are_one(prints[one], prints[other])
    for person in (0, 5):
        for name, hu, affine in variants(phantoms[person][0], AFFINE):
            found = fingerprint(coarse_hu(hu, affine))
            matches = [number for number, known in enumerate(prints) if are_one(known, found)]
            assert matches == [person], name


@pytest.fixture(scope="module")
def scans(test_data) -> dict:
    return {name: read_ct(test_data / name / "ct.nii.gz") for name in REAL}


def in_the_place_of(shape: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """A mask as it lies in the files of another scan, if their arrays are taken to begin at the same place."""
    found = np.zeros(shape, bool)
    shared = tuple(slice(0, min(a, b)) for a, b in zip(shape, mask.shape, strict=True))
    found[shared] = mask[shared]
    return found


@pytest.mark.slow
def test_labels_of_another_patient_are_found(test_data, scans, coarse_phantoms):
    coarse = {name: coarse_hu(scan.hu, scan.affine) for name, scan in scans.items()}
    livers = {}
    for name, scan in scans.items():
        file = "anatomy.nii.gz" if name == "liver_tumors" else "labels.nii.gz"
        labels = read_labels(test_data / name / file, like=scan)
        livers[name] = np.isin(coarse_labels(labels, scan.affine), REAL[name]["liver"])
    livers |= {number: labels == 1 for number, (_, labels) in enumerate(coarse_phantoms[:3])}
    seen = 0
    for name, hu in coarse.items():
        measure = FitMeasure(hu)
        for other, liver in livers.items():
            fit = None if other == name else measure.fit(in_the_place_of(hu.shape, liver))
            if fit is not None:
                seen += 1
                assert misplaced_labels(name, "liver", fit), (name, other)
    assert seen >= 15


@pytest.mark.slow
def test_no_two_real_scans_are_one_and_every_variant_is(scans, coarse_phantoms):
    prints = {name: fingerprint(coarse_hu(scan.hu, scan.affine)) for name, scan in scans.items()}
    prints |= {number: fingerprint(hu) for number, (hu, _) in enumerate(coarse_phantoms)}
    for name in REAL:
        for other, known in prints.items():
            if other != name:
                # Far below what makes one scan of two, 80 at least (a fifth of 400 places).
                assert common_places(prints[name], known) < 30, (name, other)
    for name in ("liver_healthy", "abdomen_3mm"):
        for what, hu, affine in variants(scans[name].hu, scans[name].affine):
            found = fingerprint(coarse_hu(hu, affine))
            assert [other for other, known in prints.items() if are_one(known, found)] == [name], (name, what)


@pytest.mark.parametrize(
    ("name", "flip"), [*((name, False) for name in REAL), ("liver_healthy", True), ("abdomen_3mm", True)]
)
@pytest.mark.slow
def test_sound_real_cases_are_all_well(test_data, tmp_path, name, flip):
    files = [test_data / name / "ct.nii.gz"]
    files.append(test_data / name / ("anatomy.nii.gz" if name == "liver_tumors" else "labels.nii.gz"))
    if flip:
        for number, path in enumerate(files):
            image = nib.load(path)
            turned = image.as_reoriented([[0, -1], [1, 1], [2, -1]])
            # Not compressed: reading is not what is tested.
            files[number] = tmp_path / f"{number}.nii"
            nib.save(turned, files[number])
    organs = [Organ(organ, labels, 250) for organ, labels in REAL[name].items()]
    assert examine(name, *files, organs=organs).findings == ()


def test_sound_phantoms_fit(coarse_phantoms):
    for number, (hu, labels) in enumerate(coarse_phantoms):
        measure = FitMeasure(hu)
        for organ, label in {"liver": 1, "kidney": 3, "pancreas": 5}.items():
            fit = measure.fit(labels == label)
            assert fit.shift_mm == (0, 0, 0) and fit.foreign < 0.005, (number, organ)
            assert not misplaced_labels("", organ, fit) and fit.turn_gain < 0.9


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [-5, -2, 2, 5])
def test_every_shift_of_8_mm_and_more_is_found(coarse_phantoms, axis, voxels):
    steps = tuple(voxels if at == axis else 0 for at in range(3))
    for hu, labels in coarse_phantoms[:3]:
        measure = FitMeasure(hu)
        for label in (1, 3, 5):
            (finding,) = misplaced_labels("case", "organ", measure.fit(moved(labels == label, steps)))
            assert finding.severity == "error"
        # The shift itself is read off the liver, which is large and homogeneous.
        fit = measure.fit(moved(labels == 1, steps))
        assert np.allclose(fit.shift_mm, np.array(steps) * 4.0, atol=4.1)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 1, 1)])
def test_a_label_that_is_turned_by_20_degrees_is_found(coarse_phantoms, axis):
    matrix = Rotation.from_rotvec(20 * np.divide(axis, np.linalg.norm(axis)), degrees=True).as_matrix()
    for hu, labels in coarse_phantoms[:2]:
        measure = FitMeasure(hu)
        for label in (1, 3, 5):
            middle = np.argwhere(labels == label).mean(0)
            mask = (labels == label).astype(np.float32)
            turned = affine_transform(mask, matrix, middle - matrix @ middle, order=1) > 0.5
            (finding,) = misplaced_labels("case", "organ", measure.fit(turned))
            assert finding.kind == "misplaced-labels"


@pytest.mark.slow
def test_an_offset_that_makes_muscle_look_like_fat_is_found(test_data, scans):
    """Of a scan whose liver, of 141 HU, then is as bright as one without contrast agent."""
    scan = scans["liver_healthy"]
    labels = read_labels(test_data / "liver_healthy" / "labels.nii.gz", like=scan)
    for offset_hu in (-120, -150):
        hu = scan.hu + np.float32(offset_hu)
        measure = FitMeasure(coarse_hu(hu, scan.affine))
        tissue_hu = coarse_hu(hu, scan.affine, range_hu=FAT_RANGE_HU)
        masks = {"liver": coarse_labels(labels, scan.affine) == 1}
        organs_hu = {"liver": float(np.median(hu[labels == 1]))}
        (finding,) = organ_findings("case", masks, measure, tissue_hu, organs_hu=organs_hu)
        assert finding.kind == "not-hu" and "all values may be" in finding.seen


def test_a_mirrored_label_is_called_mirrored(coarse_phantoms):
    for hu, labels in coarse_phantoms[:5]:
        (finding,) = misplaced_labels("case", "liver", FitMeasure(hu).fit((labels == 1)[:, :, ::-1]))
        assert "mirrored left to right" in finding.seen


@pytest.mark.parametrize("offset_hu", [-1024, -200, -60, 60, 100, 1024])
def test_an_offset_of_60_hu_and_more_is_found(phantoms, offset_hu):
    for hu, labels in phantoms[:3]:
        shifted = coarse_hu(hu + np.float32(offset_hu), AFFINE, range_hu=FAT_RANGE_HU)
        median_hu = float(np.median(shifted[coarse_labels(labels, AFFINE) == 1]))
        assert wrong_hu("case", {"liver": median_hu}, shifted)


def test_labels_lie_on_the_grid_of_the_scan():
    hu = np.zeros((40, 50, 60), np.float32)
    labels = np.zeros(hu.shape, np.uint8)
    hu[10:30, 10:30, 10:30], labels[10:30, 10:30, 10:30] = 100, 1
    for affine in (np.diag([1.0, 1.0, 1.0, 1]), np.diag([-0.7, 0.9, 2.0, 1]), np.diag([3.0, -5.0, 4.0, 1])):
        coarse, marked = coarse_hu(hu, affine), coarse_labels(labels, affine)
        assert coarse.shape == marked.shape
        assert np.mean((coarse > 50) == (marked == 1)) > 0.95


@pytest.mark.parametrize(
    ("organ", "median_hu", "wrong"),
    [
        ("liver", -45, False),  # steatosis
        ("liver", -55, True),
        ("left kidney", 380, False),
        ("left kidney", 410, True),
        ("pancreas", -90, False),  # lipomatosis
        ("pancreas", -130, True),
        ("spleen", 310, True),
        ("lung_upper_lobe_left", -800, False),
        ("lung_upper_lobe_left", 100, True),
        ("colon", -600, False),  # gas
        ("thing", 700, False),  # any organ
        ("thing", 900, True),
    ],
)
def test_an_organ_is_judged_by_the_limits_of_its_kind_which_are_those_of_converters(organ, median_hu, wrong):
    nothing = np.full((2, 2, 2), 50, np.float32)
    assert bool(wrong_hu("case", {organ: median_hu}, nothing)) == wrong
    hu, labels = np.full((40, 40, 40), median_hu, np.float32), np.zeros((40, 40, 40), np.uint8)
    labels[10:30, 10:30, 10:30] = 1
    if wrong:
        with pytest.raises(InputError, match=f"case: {organ} median {median_hu} HU; expected"):
            check_organs_hu(hu, labels, {organ: (1,)}, where="case")
    else:
        check_organs_hu(hu, labels, {organ: (1,)}, where="case")
