import json

import numpy as np
import pytest
from scipy import ndimage

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.dataset_conversion.phantom import LABELS, ct_noise, phantom_case
from nnunet_difftumor.dataset_conversion.phantom_body.canvas import Canvas, smooth_field
from nnunet_difftumor.dataset_conversion.phantom_body.vessels import grow_tree

COARSE = (4.0, 3.0, 3.0)
ORGANS = ("liver", "kidney", "pancreas", "spleen")
# Volumes of adults in ml, and mean HU from the late arterial to the portal venous phase, both generously.
VOLUME_ML = {"liver": (800, 2200), "kidney": (180, 500), "pancreas": (25, 120), "spleen": (80, 400)}
MEAN_HU = {"liver": (70, 130), "kidney": (110, 220), "pancreas": (60, 130), "spleen": (95, 150)}


@pytest.fixture(scope="module", params=range(4))
def phantom(request):
    return phantom_case(request.param, spacing_mm=COARSE)


def test_organs_have_human_volumes_and_the_hu_of_a_contrast_ct(phantom):
    hu, labels = phantom
    for organ in ORGANS:
        mask = labels == LABELS[organ]
        assert VOLUME_ML[organ][0] < np.count_nonzero(mask) * np.prod(COARSE) / 1000 < VOLUME_ML[organ][1]
        assert MEAN_HU[organ][0] < hu[mask].mean() < MEAN_HU[organ][1]
    assert set(np.unique(labels)) == {0, *(LABELS[organ] for organ in ORGANS)}
    # Shares of the voxels; the two real CT of the whole abdomen in the test data have 0.32 and 0.41 air, 0.24 and
    # 0.14 fat, 0.16 and 0.14 muscle and bowel, 0.019 and 0.031 bone.
    shares = {(-1100, -900): (0.2, 0.5), (-200, -60): (0.1, 0.4), (20, 90): (0.1, 0.25), (200, 1500): (0.01, 0.05)}
    for (low_hu, high_hu), (least, most) in shares.items():
        assert least < np.mean((hu > low_hu) & (hu <= high_hu)) < most
    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, np.rint(hu))


def test_organs_are_in_one_piece_and_kidneys_in_two(phantom):
    labels = phantom[1]
    for organ, expected in (("liver", 1), ("spleen", 1), ("pancreas", 1), ("kidney", 2)):
        pieces, count = ndimage.label(labels == LABELS[organ], np.ones((3, 3, 3)))
        sizes = np.sort(np.bincount(pieces.ravel())[1:])[::-1]
        assert count >= expected
        assert sizes[:expected].sum() > 0.97 * sizes.sum()


def test_organs_lie_on_the_side_where_people_have_them(phantom):
    labels = phantom[1]
    centre = {organ: np.argwhere(labels == LABELS[organ]).mean(axis=0) for organ in ORGANS}
    # The x axis points to the left, y to the back, z to the head.
    assert centre["liver"][2] < labels.shape[2] / 2 < centre["spleen"][2]
    assert centre["kidney"][1] > centre["liver"][1]
    assert centre["spleen"][0] > centre["kidney"][0]


def test_the_same_seed_gives_the_same_voxels_and_another_one_another_person(phantom):
    first, again, other = (phantom_case(seed, spacing_mm=(8, 8, 8)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not np.array_equal(first[1], other[1])


def test_lesions_are_darker_and_inside_the_liver():
    healthy_hu, healthy = phantom_case(3, spacing_mm=COARSE)
    hu, labels = phantom_case(3, spacing_mm=COARSE, lesions=3)
    lesion = labels == LABELS["liver_tumor"]
    assert ndimage.label(lesion)[1] >= 1
    assert np.all(healthy[lesion] == LABELS["liver"])
    np.testing.assert_array_equal(labels[~lesion], healthy[~lesion])
    ring = ndimage.binary_dilation(lesion, iterations=3) & (labels == LABELS["liver"])
    core = ndimage.binary_erosion(lesion)
    assert 10 < hu[ring].mean() - hu[core].mean() < 70
    far = ~ndimage.binary_dilation(lesion, iterations=3)
    np.testing.assert_array_equal(hu[far], healthy_hu[far])


def test_noise_has_the_strength_and_the_correlation_of_a_soft_tissue_kernel():
    spacing_mm = (2.0, 1.0, 1.0)
    noise = ct_noise((24, 128, 128), spacing_mm, sd_hu=20, rng=np.random.default_rng(0))
    assert noise.std() == pytest.approx(20, rel=1e-3)
    assert abs(noise.mean()) < 0.1
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    bands = [power[(frequency >= low) & (frequency < low + 0.05)].mean() for low in np.arange(0, 0.5, 0.05)]
    # f exp(-(f / f0)^2) has its peak at f0 / sqrt(2) = 0.25 / mm.
    assert np.argmax(bands) in (4, 5)
    assert bands[0] < 0.35 * max(bands)
    neighbours = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert 0.3 < neighbours < 0.7


def test_shapes_have_the_volumes_of_geometry():
    canvas = Canvas(size_mm=(60, 60, 90), spacing_mm=(1, 1, 1), rng=np.random.default_rng(0))
    ellipsoid = canvas.ellipsoid((3, -2, 30), (20, 12, 9), turn_degrees=(20, 40, 60))
    assert np.count_nonzero(ellipsoid < 0) == pytest.approx(4 / 3 * np.pi * 20 * 12 * 9, rel=0.02)
    assert canvas.alpha(ellipsoid).sum() == pytest.approx(4 / 3 * np.pi * 20 * 12 * 9, rel=0.03)
    tube = canvas.tube([(-20, 0, 30), (20, 0, 30)], [6, 6])
    assert np.count_nonzero(tube < 0) == pytest.approx(np.pi * 36 * 40 + 4 / 3 * np.pi * 216, rel=0.02)
    column = np.broadcast_to(canvas.column((0, 0), (15, 8)), canvas.hu.shape)
    assert np.count_nonzero(column < 0) == pytest.approx(60 * np.pi * 15 * 8, rel=0.02)


def test_smooth_fields_have_unit_strength_and_the_grain_asked():
    field = smooth_field((60, 60, 60), (2.0, 2.0, 2.0), grain_mm=20, rng=np.random.default_rng(0))
    assert field.dtype == np.float32
    assert 0.6 < field.std() < 1.2
    near = np.corrcoef(field[:-1].ravel(), field[1:].ravel())[0, 1]
    far = np.corrcoef(field[:-20].ravel(), field[20:].ravel())[0, 1]
    assert near > 0.95
    assert abs(far) < 0.3


def test_vessel_trees_are_connected_reach_every_target_and_thin_out_by_murrays_law():
    rng = np.random.default_rng(0)
    targets = rng.uniform(0, 100, (50, 3))
    root = np.zeros(3)
    pieces = grow_tree(root, targets, root_radius_mm=6.0, rng=rng)
    ends = {tuple(end): radius for _, end, radius in pieces}
    assert {tuple(start) for start, _, _ in pieces} <= set(ends) | {tuple(root)}
    assert {tuple(target) for target in targets} <= set(ends)
    for start in {tuple(start) for start, _, _ in pieces} - {tuple(root)}:
        fed = sum(radius**3 for begin, _, radius in pieces if tuple(begin) == start)
        assert fed <= ends[start] ** 3 * (1 + 1e-9)
    assert sum(radius**3 for start, _, radius in pieces if not start.any()) == pytest.approx(6.0**3)


def test_the_command_makes_a_dataset_of_scans_in_hu(raw):
    arguments = ["convert", "phantom", "-d", "7", "--cases", "1", "--tumor-cases", "2", "--spacing", "6", "5", "5"]
    assert main([*arguments, "--seed", "3"]) == 0
    dataset = raw / "Dataset007_Phantom"
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["labels"] == LABELS
    assert content["numTraining"] == 3
    for case in ("phantom_000", "phantom_tumor_000", "phantom_tumor_001"):
        scan = read_ct(dataset / "imagesTr" / f"{case}_0000.nii.gz")
        labels = read_labels(dataset / "labelsTr" / f"{case}.nii.gz", like=scan, declared=LABELS.values())
        assert np.any(labels == LABELS["liver_tumor"]) == ("tumor" in case)
        np.testing.assert_allclose(scan.spacing_mm, (6, 5, 5))
        # Axes z, y, x point to the head, the back and the left: in RAS+ up, -y and -x.
        np.testing.assert_array_equal(scan.direction, [[0, 0, -1], [0, -1, 0], [1, 0, 0]])
    expected = phantom_case([3, 1, 1], spacing_mm=(6, 5, 5), lesions=2)[0]
    np.testing.assert_array_equal(scan.hu, expected)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--cases", "0", "--tumor-cases", "0"], "at least one"),
        (["--cases", "-1"], "at least one"),
        (["--spacing", "0.1", "1", "1"], "expected 0.5 to 8.0 mm"),
        (["--seed", "-1"], "expected 0 or more"),
    ],
)
def test_wrong_arguments_are_named(raw, capsys, arguments, reason):
    assert main(["convert", "phantom", "-d", "7", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert list(raw.iterdir()) == []
