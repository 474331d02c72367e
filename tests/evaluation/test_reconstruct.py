"""`difftumor reconstruct`: figures of autoencoders that are known to the last voxel, and what it says of poor ones."""

import json
import re
from types import SimpleNamespace

import ct_files
import nibabel as nib
import numpy as np
import pytest
import tiny_networks
import torch
from scans import files_below
from skimage.metrics import structural_similarity
from torch import nn

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct, scan_from_array
from nnunet_difftumor.evaluation.reconstruction import reconstruct as reconstruct_module
from nnunet_difftumor.evaluation.reconstruction.advice import advice
from nnunet_difftumor.evaluation.reconstruction.scan_autoencoder import (
    Figures,
    Presentation,
    ScanAutoencoder,
    blocks,
    centre_of,
)
from nnunet_difftumor.generative.weights import Volumes, file_sha256
from nnunet_difftumor.synthesis.volume import whole

WINDOW_HU, WIDE_HU = (-175.0, 250.0), (-1000.0, 1000.0)
# Along a network's axes z, x and y; another along each.
EXTENT_MM = (24.0, 18.0, 20.0)
# HU (x, y, z) at 1 mm along the networks' axes, if nothing else is said.
RAS = np.eye(4)
RAS[:3, 3] = -30, 40, 50


class Double(nn.Module):
    """An autoencoder that does what a function does to (z, x, y)."""

    def __init__(self, change):
        super().__init__()
        self.change, self.config, self.seen = change, SimpleNamespace(downsampling=(4, 4, 4)), []

    def forward(self, volume):
        self.seen.append(tuple(volume.shape[2:]))
        return SimpleNamespace(volume=self.change(volume[0, 0])[None, None])


def plus_10_hu(volume):
    return volume + 20 / 425


def averaged(volume, axis, voxels=5):
    kernel = [1, 1, 1]
    kernel[axis] = voxels
    padding = [size // 2 for size in reversed(kernel) for _ in range(2)]
    padded = nn.functional.pad(volume[None, None], padding, mode="replicate")
    return nn.functional.avg_pool3d(padded, kernel, stride=1)[0, 0]


def noise_hu(shape=(40, 44, 36), *, seed=0):
    """Tissue and noise far inside of the window, (x, y, z)."""
    return np.random.default_rng(seed).integers(-140, 200, shape)


@pytest.fixture
def scan_file(tmp_path):
    return ct_files.save(tmp_path / "ct.nii.gz", noise_hu(), affine=RAS)


@pytest.fixture
def small_patches(monkeypatch):
    """24 mm instead of 96, of which 16 are kept."""
    monkeypatch.setattr(reconstruct_module, "PATCH_SIZE", (24, 24, 24))


@pytest.fixture
def weights(tmp_path):
    return tiny_networks.write_weights(tmp_path / "weights")


@pytest.fixture
def double(monkeypatch):
    """Puts a function in the place of the weights' network."""

    def put(change):
        load, network = reconstruct_module.load_autoencoder, Double(change)
        monkeypatch.setattr(reconstruct_module, "load_autoencoder", lambda path: (network, load(path)[1]))
        return network

    return put


def run(scan_file, weights, output, *options):
    return main([str(part) for part in ("reconstruct", scan_file, "--weights", weights, "-o", output, *options)])


def record_of(folder):
    return json.loads((folder / "reconstruction.json").read_text())


def test_figures_of_an_autoencoder_that_is_10_hu_too_bright(
    scan_file, weights, tmp_path, small_patches, double, capsys
):
    network = double(plus_10_hu)
    assert run(scan_file, weights, tmp_path / "out", "--save-ct") == 0
    record = record_of(tmp_path / "out")
    assert record["mae_hu"] == pytest.approx(10, abs=0.01)
    assert record["psnr_db"] == pytest.approx(20 * np.log10(425 / 10), abs=0.01)
    assert record["share_in_window"] == 1 and record["likely_wrong"] == []
    # z, x, y; in blocks of at most 16 mm.
    assert record["patches"] == len(network.seen) == 3 * 3 * 3
    assert set(network.seen) == {(24, 24, 24)} and record["patch_voxels"] == [24, 24, 24]
    assert record["weights"]["sha256"] == file_sha256(weights / "autoencoder.safetensors")
    assert record["inputs"]["ct"]["sha256"] == file_sha256(scan_file)
    assert "PSNR 32.6 dB" in capsys.readouterr().out
    files = {"reconstruction.png", "report.html", "reconstruction.json", "reconstruction.nii.gz"}
    assert files_below(tmp_path / "out") == files
    before, after = read_ct(scan_file), read_ct(tmp_path / "out" / "reconstruction.nii.gz")
    np.testing.assert_array_equal(after.hu, before.hu + 10)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.header["descrip"].item().startswith(b"AUTOENCODER")


def test_ssim_is_that_of_the_library_on_the_whole_scan(small_patches):
    scan = scan_from_array(noise_hu().T, affine=RAS)
    autoencoder = ScanAutoencoder(Double(lambda volume: 0.5 * volume), Volumes())
    figures = Figures(WINDOW_HU)
    for block in blocks(whole(scan.hu.shape), scan.spacing_mm, most_mm=(16, 16, 16)):
        figures.add(autoencoder.patch(scan, centre_of(block, scan.spacing_mm), extent_mm=(32, 32, 32)), block)
    made = 37.5 + 0.5 * (scan.hu - 37.5)
    padded = [np.pad(hu, 3, mode="edge") for hu in (scan.hu, made)]
    _, similarity = structural_similarity(*padded, win_size=7, data_range=425, full=True)
    assert figures.ssim == pytest.approx(similarity[3:-3, 3:-3, 3:-3].mean(), abs=1e-5)
    assert 0.1 < figures.ssim < 0.9


@pytest.mark.parametrize("affine", ct_files.ORIENTATIONS.values(), ids=ct_files.ORIENTATIONS)
def test_parts_make_the_whole_in_any_orientation(affine):
    """An operation of few voxels does not notice the patches' borders; every voxel is counted once."""
    scan = scan_from_array(noise_hu((26, 21, 17)).T, affine=affine)
    autoencoder = ScanAutoencoder(Double(lambda volume: volume), Volumes(spacing_mm=(3.0, 1.5, 2.0)))
    region = (slice(1, 16), slice(2, 21), slice(0, 25))
    made, figures = np.full(scan.hu.shape, np.nan, np.float32), Figures(WINDOW_HU)
    parts = blocks(region, scan.spacing_mm, most_mm=autoencoder.kept_mm(scan, EXTENT_MM))
    assert len(parts) > 8
    for block in parts:
        assert np.isnan(made[block]).all()
        patch = autoencoder.patch(scan, centre_of(block, scan.spacing_mm), extent_mm=EXTENT_MM)
        made[block] = patch.grid.to_scan(patch.made_hu, block)
        figures.add(patch, block)
    assert np.isnan(made).sum() == made.size - scan.hu[region].size
    if affine is ct_files.RAS:  # the network's voxels are the scan's
        np.testing.assert_allclose(made[region], scan.hu[region], atol=1e-3)
        assert figures._voxels == scan.hu[region].size
    assert figures.psnr_db == 100 and figures.mae_hu < 1e-3 and figures.ssim == pytest.approx(1)


def test_patches_have_the_size_of_the_training(scan_file, weights, tmp_path, double, small_patches):
    network = double(plus_10_hu)
    damaged(weights, {"source": {"settings": {"patch_size": [32, 20, 24]}}})
    assert run(scan_file, weights, tmp_path / "out") == 0
    assert set(network.seen) == {(32, 20, 24)} and record_of(tmp_path / "out")["patch_voxels"] == [32, 20, 24]


def test_a_mask_limits_the_region_to_the_organs_box(scan_file, weights, tmp_path, small_patches, double, capsys):
    double(plus_10_hu)
    labels = np.zeros((40, 44, 36))
    labels[8:20, 10:17, 4:14], labels[0, 0, 0] = 3, 1
    mask = ct_files.save(tmp_path / "mask.nii.gz", labels, affine=RAS, dtype=np.uint8)
    options = ["--organ-mask", mask, "--organ-label", 3, "--save-ct"]
    assert run(scan_file, weights, tmp_path / "out", *options) == 0
    record = record_of(tmp_path / "out")
    assert record["region"] == [[4, 14], [10, 17], [8, 20]]
    assert record["patches"] == 1 and record["mae_hu"] == pytest.approx(10, abs=0.01)
    before, after = (np.asarray(nib.load(path).dataobj) for path in (scan_file, tmp_path / "out/reconstruction.nii.gz"))
    changed = np.zeros(before.shape, bool)
    changed[8:20, 10:17, 4:14] = True
    np.testing.assert_array_equal(after - before, 10 * changed)


def upper_half(volume):
    """Knows patients in whose upper half there is air."""
    known = volume.clone()
    known[len(volume) // 2 :] = -1
    return known


def without_the_smooth(volume):
    smooth = volume
    for axis in range(3):
        smooth = averaged(smooth, axis, 3)
    return volume - smooth


def advice_on(hu_zyx, change, *, affine=RAS, volumes=None):
    scan = scan_from_array(hu_zyx, affine=affine)
    autoencoder = ScanAutoencoder(Double(change), volumes or Volumes())
    return advice(autoencoder, scan, centre_of(whole(scan.hu.shape), scan.spacing_mm))


def test_axes_in_another_order_are_found():
    """The double blurs along its last axis; the scan is even along its z, which belongs there."""
    hu = np.broadcast_to(noise_hu((1, 48, 48)), (48, 48, 48)).astype(float)
    found = advice_on(hu, lambda volume: averaged(volume, 2))
    assert [mistake.kind for mistake in found.mistakes] == ["axes"]
    # Of the orders with S last, one that changes two axes.
    assert re.match(r"Better by [\d.]+ dB with the axes ARS instead of SRA: .*header", found.lines()[0])
    assert found.mistakes[0].better_db > 20


def test_a_flipped_axis_is_found():
    hu = np.full((48, 48, 48), -175.0)
    hu[24:] = noise_hu((24, 48, 48))
    (line,) = advice_on(hu, upper_half).lines()
    assert "with the axes IRA instead of SRA" in line
    assert advice_on(hu[::-1], upper_half).patch_psnr_db == 100


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        # What is soft tissue in a window of -1000 to 1000.
        (lambda volume: volume.clamp(-0.18, 0.26), "window", "window -1000 to 1000 HU instead of -175 to 250"),
        (lambda volume: volume.clamp(0, 1), "window", "mapped to 0 to 1 instead of -1 to 1"),
    ],
)
def test_another_window_is_found(change, kind, words):
    hu = np.random.default_rng(0).choice([-170.0, 245.0], (48, 48, 48))
    found = advice_on(hu, change)
    assert found.mistakes[0].kind == kind and words in found.lines()[0]
    assert [mistake.kind for mistake in found.mistakes] == [kind]


def test_a_window_that_is_too_wide_is_found_though_its_psnr_is_not_low(
    weights, tmp_path, double, small_patches, capsys
):
    """The double takes for noise what differs little from the mean."""
    double(lambda volume: torch.where((volume - volume.mean()).abs() < 0.3, volume.mean(), volume))
    damaged(weights, {"volumes": {"window_hu": WIDE_HU, "spacing_mm": [1.0, 1.0, 1.0], "axes": "SRA"}})
    hu = np.random.default_rng(0).choice([-130, 205], (24, 24, 24))
    assert run(ct_files.save(tmp_path / "ct.nii.gz", hu, affine=RAS), weights, tmp_path / "out") == 0
    assert record_of(tmp_path / "out")["psnr_db"] > 20
    assert "with the window -175 to 250 HU instead of -1000 to 1000" in capsys.readouterr().out


def test_pushing_the_scan_out_of_the_window_is_no_advice():
    """With 1000 HU more the double would make it well, and half of it would be white."""
    hu = np.random.default_rng(0).choice([-130.0, 205.0], (48, 48, 48))
    found = advice_on(hu, lambda volume: torch.where(volume < 0.85, 0.0, volume), volumes=Volumes(window_hu=WIDE_HU))
    assert found.mistakes == [] and found.poor


def test_a_scan_that_was_not_to_be_resampled_is_found():
    """The double keeps what differs from voxel to voxel; between voxels of 3 mm nothing does."""
    hu = np.random.default_rng(0).choice([-135.0, 210.0], (20, 20, 20))
    found = advice_on(hu, without_the_smooth, affine=np.diag([3.0, 3.0, 3.0, 1]))
    assert "with voxels of 3 x 3 x 3 mm instead of 1 x 1 x 1" in found.lines()[0]
    assert [mistake.kind for mistake in found.mistakes] == ["voxel size"]


def test_a_scan_without_its_intercept_is_found(weights, tmp_path, double, small_patches, capsys):
    """In the window the organ looks perfect: all of it is white. Padding and lung make the scan pass as CT."""
    double(lambda volume: volume)
    stored = noise_hu((60, 40, 40)) + 1024
    stored[:2], stored[2:8] = -2000 + 1024, -800 + 1024
    path = ct_files.save(tmp_path / "unsigned.nii.gz", stored, affine=RAS)
    mask = ct_files.save(tmp_path / "mask.nii.gz", stored > 800, affine=RAS, dtype=np.uint8)
    assert run(path, weights, tmp_path / "out", "--organ-mask", mask) == 0
    printed = capsys.readouterr().out
    assert "PSNR 100.0 dB" in printed
    assert "Only 0.0 % of the region lies within the window" in printed
    assert re.search(r"with -1024 HU added to the scan: .*without its intercept", printed)
    assert len(record_of(tmp_path / "out")["likely_wrong"]) == 2


@pytest.mark.parametrize("constant", [-1.0, 0.0, 1.0])
def test_no_mistake_explains_a_constant(constant):
    """A lucky shade of grey in another window is not better."""
    hu = noise_hu((48, 48, 48)) + 0.0
    found = advice_on(hu, lambda volume: torch.full_like(volume, constant))
    assert found.mistakes == []
    assert "the weights are hardly trained, or of other data" in found.lines()[0]


def test_untrained_weights_are_named(weights, tmp_path, small_patches, capsys):
    scan_file = ct_files.save(tmp_path / "ct.nii.gz", noise_hu((12, 12, 12)), affine=RAS)
    assert run(scan_file, weights, tmp_path / "out") == 0
    assert "the weights are hardly trained, or of other data" in capsys.readouterr().out
    assert record_of(tmp_path / "out")["psnr_db"] < 20


def test_a_good_middle_is_said():
    found = advice_on(noise_hu((48, 48, 48)) + 0.0, plus_10_hu)
    assert found.mistakes == [] and "The middle of the region is good (PSNR 32.6 dB)" in found.lines()[0]


def test_presentations_are_the_weights_own_unless_said():
    volumes = Volumes(window_hu=(-100.0, 200.0), spacing_mm=(2.0, 1.0, 1.0), axes="LPS")
    scan = scan_from_array(noise_hu((30, 30, 30)).T, affine=RAS)
    network = Double(lambda volume: volume)
    patch = ScanAutoencoder(network, volumes).patch(scan, (15, 15, 15), extent_mm=(16, 16, 16))
    assert network.seen == [patch.grid.shape] == [(8, 16, 16)]
    assert patch.scan_hu.min() >= -100 and patch.scan_hu.max() <= 200
    assert Presentation.of(volumes) == Presentation("LPS", (2.0, 1.0, 1.0), (-100.0, 200.0))


class OutOfMemory(nn.Module):
    config = SimpleNamespace(downsampling=(4, 4, 4))

    def forward(self, volume):
        raise torch.cuda.OutOfMemoryError("no")


def damaged(folder, what):
    page = folder / "autoencoder.json"
    content = json.loads(page.read_text())
    page.write_text(json.dumps(content | what))


def test_bad_input_is_refused_in_one_line(scan_file, weights, tmp_path, monkeypatch, capsys, small_patches):
    empty = ct_files.save(tmp_path / "empty.nii.gz", np.zeros((40, 44, 36)), affine=RAS, dtype=np.uint8)
    other = ct_files.save(tmp_path / "other.nii.gz", np.ones((40, 44, 35)), affine=RAS, dtype=np.uint8)
    nan = ct_files.save(tmp_path / "nan.nii.gz", np.full((9, 9, 9), np.nan), affine=RAS, dtype=np.float32)

    def refused(message, *options, scan=scan_file, folder=weights):
        assert run(scan, folder, tmp_path / "out", *options) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and re.search(message, error), error
        assert not (tmp_path / "out" / "reconstruction.json").exists()

    refused(
        r"none: autoencoder.safetensors not found; .*download-weights --organ liver",
        folder=tmp_path / "none",
    )
    refused("empty.nii.gz: no voxel has a label above 0", "--organ-mask", empty)
    refused("no voxel has the label 7 .there: 0.", "--organ-mask", empty, "--organ-label", 7)
    refused("other.nii.gz: .* voxels", "--organ-mask", other)
    refused("--organ-label: is for --organ-mask", "--organ-label", 1)
    refused("NaN or infinite", scan=nan)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("--device is cuda, but torch finds no CUDA device", "--device", "cuda")
    monkeypatch.delenv("nnUNet_results", raising=False)
    assert main(["reconstruct", str(scan_file), "-o", str(tmp_path / "out")]) == 2
    assert re.search("nnUNet_results is not set.*name a folder of weights with --weights", capsys.readouterr().err)
    with monkeypatch.context() as patched:
        load = reconstruct_module.load_autoencoder
        patched.setattr(reconstruct_module, "load_autoencoder", lambda path: (OutOfMemory(), load(path)[1]))
        refused("the GPU's memory is too small for a patch of 24 x 24 x 24 voxels")
        patched.setattr(
            reconstruct_module, "load_autoencoder", lambda path: (Double(lambda v: v * np.nan), load(path)[1])
        )
        refused("makes NaN or infinite values")
    damaged(weights, {"source": {"settings": {"patch_size": "large"}}})
    refused("patch_size in source is 'large', expected three numbers")
    damaged(weights, {"kind": "diffusion"})
    refused("holds a model of the kind diffusion, expected autoencoder")


def test_an_input_is_not_overwritten(weights, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    scan_file = ct_files.save(tmp_path / "out" / "reconstruction.nii.gz", noise_hu(), affine=RAS)
    before = scan_file.read_bytes()
    assert run(scan_file, weights, tmp_path / "out", "--save-ct") == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert scan_file.read_bytes() == before
