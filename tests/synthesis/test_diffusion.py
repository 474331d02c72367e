"""Diffusion tumors: the geometry is that of hand-crafted ones, what is inside comes from the networks."""

import importlib
from dataclasses import replace

import cc3d
import numpy as np
import pytest
import tiny_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter
from tumors import LIVER, copy_of, liver_scan, spec, specs

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion import fast
from nnunet_difftumor.synthesis.networks import view as network_view
from nnunet_difftumor.synthesis.networks.device_program import DeviceProgram
from nnunet_difftumor.synthesis.networks.diffusion import DiffusionRenderer, as_diffusion
from nnunet_difftumor.synthesis.patch import Patch
from nnunet_difftumor.synthesis.scene import insert_tumors, patch_of
from nnunet_difftumor.synthesis.shape.profile import alpha_in
from nnunet_difftumor.synthesis.volume import ArrayVolume

RAS = np.eye(3)[:, ::-1]  # of an array (z, y, x)
MODELS = tiny_networks.models("early", "late")


@pytest.fixture(autouse=True)
def small_context(monkeypatch):
    monkeypatch.setattr(network_view, "CONTEXT_MM", 4.0)


def scan(extent_mm=46.0, spacing_mm=(1.0, 1.0, 1.0), *, direction=RAS, **changes) -> ArrayVolume:
    volume = liver_scan(extent_mm, spacing_mm, **changes)
    return replace(volume, direction=direction)


def renderer(*stages, **changes) -> DiffusionRenderer:
    models = {stage: MODELS[stage] for stage in stages or ("early", "late")}
    return DiffusionRenderer(models, organ="liver", threads=1, **changes)


def tumor(**changes):
    return as_diffusion(spec(**{"semi_axes_mm": (5.0, 5.0, 5.0)} | changes))


def inserted(tumors, before, **changes):
    after = copy_of(before)
    return insert_tumors(after, tumors, LIVER, renderer=renderer(**changes)), after


class Painter:
    """In place of a sampler: a function of what the networks are told, (volume in [-1, 1], mask) -> volume."""

    draws = taken = 1

    def __init__(self, draw):
        self.model, self.draw = self, draw

    def latent_shape(self, size):
        return 1, 1, 1, 1

    def condition(self, volume, tumor):
        made = [self.draw(*(values[0].numpy() for values in pair)) for pair in zip(volume, tumor, strict=True)]
        return torch.from_numpy(np.stack(made)[:, None].astype(np.float32))

    def advance(self, noisy, condition, noises, steps):
        return condition

    def decode_scaled(self, latent):
        return latent

    def replay_parts(self, parts, block, *, key):
        (part,) = parts
        return part(block)


def painted_by(draw) -> DiffusionRenderer:
    made = DiffusionRenderer(MODELS, organ="liver")
    made._samplers = {stage: Painter(draw) for stage in MODELS}
    return made


def drawn_by(draw, before, *tumors):
    after = copy_of(before)
    return insert_tumors(after, list(tumors), LIVER, renderer=painted_by(draw)), after


@settings(max_examples=8, deadline=None)
@given(
    shape=specs(radius_mm=(2.6, 9)),
    spacing_mm=st.sampled_from([(1.0, 1.0, 1.0), (2.5, 0.8, 0.8), (3.0, 1.5, 1.5), (5.0, 5.0, 5.0)]),
    radius_mm=st.sampled_from([None, 14.0]),
)
def test_mask_and_label_are_those_of_the_hand_crafted_tumor_and_nothing_else_changes(shape, spacing_mm, radius_mm):
    # In an organ that is as large as the scan, or so small that it cuts the tumor.
    before = scan(40.0, spacing_mm, radius_mm=radius_mm)
    by_hand = copy_of(before)
    (expected,) = insert_tumors(by_hand, [shape], LIVER)
    (rendered,), after = inserted([as_diffusion(shape)], before)
    assert rendered.box == expected.box
    np.testing.assert_array_equal(rendered.mask, expected.mask)
    np.testing.assert_array_equal(after.label_array, by_hand.label_array)
    if not rendered.mask.any():
        np.testing.assert_array_equal(after.hu_array, before.hu_array)
        return
    assert cc3d.connected_components(rendered.mask, connectivity=6, return_N=True)[1] == 1
    organ = LIVER.mask(before.label_array)
    assert organ[rendered.box][rendered.mask].all()
    reached = np.zeros(before.shape, bool)
    reached[rendered.box] = alpha_in(shape, rendered.box, spacing_mm, organ[rendered.box]) > 0
    np.testing.assert_array_equal(after.hu_array[~reached], before.hu_array[~reached])
    assert (after.hu_array[rendered.box] != before.hu_array[rendered.box])[rendered.mask].mean() > 0.9


def test_the_same_spec_gives_the_same_bits_and_another_seed_others():
    before = scan()
    (_, first), (_, second) = inserted([tumor()], before), inserted([tumor()], before)
    np.testing.assert_array_equal(first.hu_array, second.hu_array)
    # A ball has no random shape: only the networks' noise differs.
    (other,), third = inserted([tumor(seed=8)], before)
    assert (third.hu_array != first.hu_array)[other.box][other.mask].mean() > 0.9


def test_the_fast_path_changes_no_manifest_and_voxels_by_rounding_only(monkeypatch):
    before, one = scan(), tumor()
    (quick,), _ = inserted([one], before)
    record = renderer().record()
    path = "nnunet_difftumor."
    users = [f"{path}generative.networks.{name}" for name in ("attention", "autoencoder", "unet")]
    operations = ("depth_attention", "group_norm_modulate_silu", "spatial_linear_attention")
    users += [f"{path}kernels.{name}" for name in operations]
    asked = []
    for user in users:
        answer = lambda x, user=user: asked.append(user)  # noqa: E731
        monkeypatch.setattr(importlib.import_module(user), "is_cpu_inference", answer)
    (plain,), _ = inserted([one], before)
    assert set(asked) == set(users)
    assert renderer().record() == record
    assert plain.spec == quick.spec and plain.box == quick.box
    np.testing.assert_array_equal(plain.mask, quick.mask)
    # Rounding may move a vector to another code: rarely, and then a block of voxels.
    assert np.count_nonzero(np.abs(plain.hu - quick.hu) > 0.01) <= 0.01 * quick.hu.size


def test_neighbours_in_a_batch_change_nothing():
    before, model = scan(60.0), renderer()
    tumors = [
        tumor(centre_mm=(20.0, 20.0, 20.0)),
        tumor(centre_mm=(25.0, 25.0, 25.0), seed=1, size_class="medium"),
        tumor(centre_mm=(-50.0, 20.0, 20.0)),
        tumor(centre_mm=(35.0, 38.0, 36.0), seed=2),
    ]
    patches = [patch_of(before, one, LIVER, box=model.region(before, one)) for one in tumors]
    together = model.render(patches, tumors)
    assert [one.spec for one in together] == tumors
    assert not together[2].mask.any()
    for patch, one, found in zip(patches, tumors, together, strict=True):
        (alone,) = model.render([patch], [one])
        np.testing.assert_array_equal(found.mask, alone.mask)
        assert found.box == alone.box
        # Rounding may move a vector to another code: rarely, and then a block of voxels.
        assert np.count_nonzero(np.abs(found.hu - alone.hu) > 0.01) <= 0.01 * found.hu.size


@pytest.mark.parametrize("direction", [np.eye(3)[:, [2, 1, 0]] * [-1, -1, 1], np.eye(3)[:, [0, 2, 1]] * [1, -1, -1]])
def test_the_networks_see_the_patient_however_the_scan_is_stored(direction):
    """The same patient, stored along other axes, gets the same tumor."""
    before = scan(40.0, radius_mm=17.0)
    before.hu_array[:, :, 20:] += 20
    before.hu_array[24:] -= 30
    (expected,), after = inserted([tumor(centre_mm=(20.0,) * 3)], before)
    # From (z, y, x) of RAS to the axes of `direction`.
    order, flips = [], []
    for column in direction.T:
        axis = 2 - int(np.abs(column).argmax())
        order.append(axis)
        flips.append(column.sum() < 0)

    def stored(array):
        array = array.transpose(order)
        return np.ascontiguousarray(array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)])

    other = ArrayVolume(stored(before.hu_array), stored(before.label_array), before.spacing_mm, direction)
    (rendered,), turned = inserted([tumor(centre_mm=(20.0,) * 3)], other)
    assert before.shape == (41, 41, 41), "the centre is the same from every side"
    assert rendered.mask.sum() == expected.mask.sum()
    changed = stored(after.hu_array) != other.hu_array
    assert changed.any()
    assert np.mean(np.abs(turned.hu_array - stored(after.hu_array))[changed] > 0.01) < 0.05


def test_sizes_choose_the_model():
    before = scan()
    for stages, size, refused in (
        (("early",), "medium", "which needs a model of the stage late; there is only early"),
        (("late",), "tiny", "which needs a model of the stage early; there is only late"),
    ):
        model = renderer(*stages)
        with pytest.raises(InputError, match=refused):
            model.region(before, tumor(size_class=size))
    early, late = (inserted([tumor(size_class=size)], before)[1].hu_array for size in ("small", "medium"))
    assert (early != late).any()
    with pytest.raises(InputError, match="size_class is 'huge', expected one of tiny, small, medium, large"):
        inserted([tumor(size_class="huge")], before)


def test_early_tumors_take_every_step_of_ddpm_and_late_ones_those_of_ddim(monkeypatch):
    calls = []
    for name in ("ddpm_step", "ddim_step"):
        real = getattr(fast, name)
        noted = lambda *args, name=name, real=real, **kwargs: calls.append(name) or real(*args, **kwargs)  # noqa: E731
        monkeypatch.setattr(fast, name, noted)
    before = scan()
    for size, expected in (("tiny", ["ddpm_step"] * 4), ("small", ["ddpm_step"] * 4), ("medium", ["ddim_step"] * 5)):
        calls.clear()
        inserted([tumor(size_class=size)], before)
        assert calls == expected
    calls.clear()
    inserted([tumor(size_class="large")], before, sampler_steps=2)
    inserted([tumor()], before, sampler_steps=2)
    assert calls == ["ddim_step"] * 2 + ["ddpm_step"] * 4
    with pytest.raises(InputError, match="DDIM steps: 7 do not divide"):
        renderer(sampler_steps=7)


def test_the_region_grows_with_the_tumor():
    before, model = scan(60.0), renderer()
    sizes = {}
    for radius_mm in (5.0, 16.0):
        one = tumor(centre_mm=(30.0,) * 3, semi_axes_mm=(radius_mm,) * 3)
        grid = model._view(one).grid(one, before.spacing_mm, RAS)
        sizes[radius_mm] = grid.shape
        assert all(n % multiple == 0 for n, multiple in zip(grid.shape, (2, 4, 4), strict=True))
    assert sizes[5.0] == (24, 24, 24)
    assert all(n >= 2 * (16 + 3 * 0.9 + 4) for n in sizes[16.0])
    (rendered,), _ = inserted([tumor(centre_mm=(30.0,) * 3, semi_axes_mm=(16.0,) * 3, size_class="large")], before)
    assert rendered.mask.sum() == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.02)


def test_a_region_across_the_scans_border_is_filled_up():
    before = scan(30.0)
    (rendered,), after = inserted([tumor(centre_mm=(2.0, 28.0, 15.0))], before)
    assert rendered.mask.any()
    assert np.isfinite(after.hu_array).all()


def test_networks_see_the_scan_in_their_window_and_the_tumor_masked():
    seen = []

    def draw(volume, mask):
        seen.append((volume, mask))
        return volume

    before = scan(40.0, mean_hu=100.0, sd_hu=0.0)
    before.hu_array[:, :, 30:] = 1000
    before.hu_array[:12] = -1000
    (rendered,), _ = drawn_by(draw, before, tumor())
    ((volume, mask),) = seen
    assert volume.shape == mask.shape == (24, 24, 24)
    assert mask.dtype == bool
    assert mask.sum() == rendered.mask.sum()
    assert volume.min() == -1 and volume.max() == 1
    assert volume[12, 12, 12] == pytest.approx((100 + 175) / 212.5 - 1)
    assert (volume[:4] == -1).all(), "z is the first axis and grows upwards"
    assert (volume[12:, 22:] == 1).all(), "then x, which grows to the patient's right"


def test_a_tumor_smaller_than_the_networks_voxels_is_not_lost():
    before = scan(12.0, (0.3, 0.3, 0.3))
    before.label_array[:] = 0
    before.label_array[21, 22, 18] = 1
    masks = []
    (rendered,), _ = drawn_by(
        lambda volume, mask: masks.append(mask) or volume, before, tumor(centre_mm=(6.0,) * 3, semi_axes_mm=(2.6,) * 3)
    )
    assert rendered.mask.sum() == 1
    assert masks[0].any()


def ball_tumor(volume, mask, *, offset=0.0):
    """40 HU darker than 100 HU, without noise."""
    return np.where(mask, np.float32((60 + 175) / 212.5 - 1), volume) + np.float32(offset / 212.5)


LARGE = {"centre_mm": (30.0,) * 3, "semi_axes_mm": (11.0,) * 3, "background_hu": 100.0}


@pytest.mark.parametrize("offset_hu", [0.0, 15.0, -25.0])
def test_the_contrast_is_the_models_whatever_the_autoencoder_does_to_healthy_tissue(offset_hu):
    before = scan(60.0, mean_hu=100.0, sd_hu=8.0)
    (rendered,), _ = drawn_by(lambda v, m: ball_tumor(v, m, offset=offset_hu), before, tumor(**LARGE))
    inner = binary_erosion(rendered.mask, iterations=2)
    assert rendered.hu[inner].mean() - 100 == pytest.approx(-40, abs=1.5)


def noise_of_inside(picture, spacing_mm=(1.0, 1.0, 1.0)):
    before = scan(60.0, spacing_mm, mean_hu=100.0, sd_hu=10.0)
    (rendered,), _ = drawn_by(picture, before, tumor(**LARGE))
    inner = binary_erosion(rendered.mask, iterations=2)
    return rendered.hu[inner].std(), rendered.hu[inner], before.hu_array[rendered.box][inner]


def smoothing(volume, mask):
    return np.where(mask, np.float32((60 + 175) / 212.5 - 1), gaussian_filter(volume, 2))


def as_noisy_as_the_scan(volume, mask):
    made = np.random.default_rng(5).normal(0, 10 / 212.5, volume.shape)
    return np.where(mask, (60 + 175) / 212.5 - 1 + made, volume).astype(np.float32)


def test_noise_that_an_autoencoder_smooths_is_given_back_from_the_scan():
    sd, after, before = noise_of_inside(smoothing)
    assert sd == pytest.approx(10, rel=0.1)
    assert np.corrcoef(after, before)[0, 1] > 0.9


def test_a_picture_as_noisy_as_the_scan_gets_no_more_noise():
    sd, after, before = noise_of_inside(as_noisy_as_the_scan)
    assert sd == pytest.approx(10, rel=0.1)
    assert abs(np.corrcoef(after, before)[0, 1]) < 0.1


def test_noise_that_resampling_takes_is_given_back():
    sd, _, _ = noise_of_inside(as_noisy_as_the_scan, (0.7, 0.7, 0.7))
    assert sd == pytest.approx(10, rel=0.15)


def test_vessels_under_the_tumor_do_not_shine_through():
    before = scan(60.0, mean_hu=100.0, sd_hu=6.0)
    before.hu_array[:, 29:33, 29:33] += 80
    (rendered,), _ = drawn_by(smoothing, before, tumor(**LARGE))
    inner = binary_erosion(rendered.mask, iterations=2)
    vessel = np.zeros(before.shape, bool)
    vessel[:, 29:33, 29:33] = True
    vessel = vessel[rendered.box]
    assert abs(rendered.hu[inner & vessel].mean() - rendered.hu[inner & ~vessel].mean()) < 3


def test_what_the_decoder_draws_is_cut_to_the_networks_window(monkeypatch):
    pictures, real = [], DeviceProgram.picture_hu
    monkeypatch.setattr(
        DeviceProgram, "picture_hu", lambda program, decoded: pictures.append(real(program, decoded)) or pictures[-1]
    )
    model, before, one = renderer(), scan(), tumor()
    decode = model.models["early"][0].decode_scaled
    monkeypatch.setattr(model.models["early"][0], "decode_scaled", lambda latent: 9 * decode(latent))
    insert_tumors(copy_of(before), [one], LIVER, renderer=model)
    assert (pictures[0].min(), pictures[0].max()) == (-175, 250)


def test_mass_effect_moves_the_tissue_around_and_the_networks_see_it():
    pushing = tumor(**LARGE, mass_effect=0.5, mass_effect_radius_mm=20.0)
    before = scan(70.0, sd_hu=3.0)
    before.hu_array[:, :, 45:48] += 90
    by_hand = copy_of(before)
    (expected,) = insert_tumors(by_hand, [replace(pushing, renderer="handcrafted")], LIVER)
    seen = []
    (rendered,), after = drawn_by(lambda v, m: seen.append(v) or v, before, pushing)
    np.testing.assert_array_equal(after.label_array, by_hand.label_array)
    untouched = alpha_in(pushing, rendered.box, before.spacing_mm, np.ones(rendered.hu.shape, bool)) == 0
    np.testing.assert_array_equal(rendered.hu[untouched], expected.hu[untouched])
    assert (rendered.hu[untouched] != before.hu_array[rendered.box][untouched]).any()
    middle = ((after.hu_array[30, 30, 42:54] + 175) / 212.5 - 1).clip(-1, 1)
    profile = seen[0][seen[0].shape[0] // 2, :, seen[0].shape[2] // 2]
    start = seen[0].shape[1] // 2 + 12
    np.testing.assert_allclose(profile[start : start + len(middle)], middle[: len(profile) - start], atol=1e-5)


def test_specs_and_patches_that_do_not_fit_are_refused():
    before, model = scan(), renderer()
    one = tumor()
    patch = patch_of(before, one, LIVER, box=model.region(before, one))
    with pytest.raises(InputError, match="renderer is 'handcrafted', expected 'diffusion'"):
        model.render([patch], [spec()])
    with pytest.raises(InputError, match="kind is 'cyst'; diffusion models draw tumors only"):
        model.render([patch], [replace(one, kind="cyst")])
    with pytest.raises(InputError, match="take the renderer's region"):
        model.render([patch_of(before, one, LIVER)], [one])
    with pytest.raises(InputError, match="direction is not known"):
        model.render([replace(patch, direction=None)], [one])
    assert isinstance(patch, Patch)


def test_what_the_model_decides_is_0_in_the_spec():
    drawn = as_diffusion(spec(core_size=0.4, core_contrast_hu=-20.0, capsule_hu=50.0, mass_effect=0.2))
    assert drawn.renderer == "diffusion"
    unused = ("contrast_hu", "texture_sd_hu", "core_size", "core_contrast_hu", "capsule_hu")
    assert {getattr(drawn, name) for name in unused} == {0.0}
    kept = replace(drawn, **{name: getattr(spec(), name) for name in ("contrast_hu", "texture_sd_hu", "renderer")})
    assert kept == spec(mass_effect=0.2)


def test_too_little_memory_on_the_gpu_is_explained(monkeypatch):
    def full(*args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    before, model = scan(60.0), renderer()
    monkeypatch.setattr(model.models["early"][0], "condition", full)
    tumors = [tumor(), tumor(centre_mm=(40.0,) * 3)]
    patches = [patch_of(before, one, LIVER, box=model.region(before, one)) for one in tumors]
    with pytest.raises(InputError, match="batch of 2 with a patch of 24 x 24 x 24 voxels: render fewer"):
        model.render(patches, tumors)
    with pytest.raises(InputError, match=r"batch of 1 with .*: free the GPU's memory, or use the CPU"):
        model.render(patches[:1], tumors[:1])


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch finds no CUDA device"):
        renderer(device="cuda")
    with pytest.raises(InputError, match="expected cpu or cuda"):
        renderer(device="tpu")


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    model = DiffusionRenderer(MODELS, organ="liver", threads=before + 1)
    one, volume = tumor(), scan()
    model.render([patch_of(volume, one, LIVER, box=model.region(volume, one))], [one])
    assert torch.get_num_threads() == before
    assert model.record()["threads"] == before + 1
