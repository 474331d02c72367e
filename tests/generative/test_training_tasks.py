"""What a step of each training computes, and that both learn."""

import dataclasses
import importlib.util
import json
import math
import signal

import pytest
import torch
from pages import REPOSITORY
from seeded import autoencoder as seeded_autoencoder
from stored_volumes import write_stored
from torch import nn

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.training import run_folder
from nnunet_difftumor.generative.training.adversarial import discriminator_loss, feature_distance, generator_loss
from nnunet_difftumor.generative.training.autoencoder_task import AutoencoderTask
from nnunet_difftumor.generative.training.diffusion_task import DiffusionTask, ddim_steps
from nnunet_difftumor.generative.training.ema import MovingAverage
from nnunet_difftumor.generative.training.perceptual import PerceptualDistance
from nnunet_difftumor.generative.training.run_folder import RunFolder, read_curve
from nnunet_difftumor.generative.training.settings import (
    AutoencoderTrainingSettings,
    DiffusionTrainingSettings,
    resolve,
)
from nnunet_difftumor.generative.training.task import DivergedError
from nnunet_difftumor.generative.training.train import train_autoencoder, train_diffusion
from nnunet_difftumor.generative.weights import Volumes, load_autoencoder, save_weights


def test_hinge_and_log_losses_of_known_logits():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert discriminator_loss(real, fake, kind="hinge") == 0.5 * (0.5 + 1.0)
    assert generator_loss(fake, kind="hinge") == 1.0
    softplus = [math.log1p(math.exp(x)) for x in (-2.0, 0.0, -3.0, 1.0, 3.0, -1.0)]
    expected = 0.25 * sum(softplus[:4])
    assert discriminator_loss(real, fake, kind="log").item() == pytest.approx(expected, rel=1e-6)
    assert generator_loss(fake, kind="log").item() == pytest.approx(sum(softplus[4:]) / 2, rel=1e-6)


def test_feature_matching_sums_layers_and_moves_the_generated_only():
    real = [torch.ones(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    fake = [torch.zeros(2, requires_grad=True), torch.full((3,), 4.0, requires_grad=True)]
    distance = feature_distance(real, fake)
    distance.backward()
    assert distance == 5
    assert real[0].grad is None
    assert fake[0].grad is not None


def test_moving_average_is_a_copy_until_its_start_and_then_follows():
    network = nn.Linear(1, 1)
    average = MovingAverage(network, decay=0.9, start=2, every=2)
    values = []
    for step in range(1, 7):
        network.weight.data.fill_(step)
        average.update(network, step=step)
        values.append(round(average.network.weight.item(), 5))
    assert values == [1, 2, 2, 2.2, 2.2, 2.58]


def images():
    return torch.rand(2, 1, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_random_features_are_the_same_everywhere_and_tell_sharp_from_blurred():
    real = images()
    blurred = nn.functional.avg_pool2d(real, 3, stride=1, padding=1)
    shifted = real + 0.02
    distance = PerceptualDistance()
    assert distance(real, real) == 0
    assert distance(real, blurred) > 10 * distance(real, shifted) > 0
    assert torch.equal(distance(real, blurred), PerceptualDistance()(real, blurred))
    fake = blurred.requires_grad_()
    distance(real, fake).backward()
    assert fake.grad.isfinite().all()
    assert fake.grad.abs().sum() > 0


def test_vgg16_weights_come_from_a_file_that_is_not_executed(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    file = tmp_path / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, file)
    distance, image = PerceptualDistance(file), images()
    expected = ((image + 1) / 2 - distance.mean) / distance.deviation
    # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 in torchvision's numbering.
    for features, last in zip(distance._features(image), (3, 8, 15, 22, 29), strict=True):
        torch.testing.assert_close(features, layers[: last + 1](expected))

    torch.save({"features.0.weight": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"expected VGG16 with features\.0\.weight of \(64, 3, 3, 3\), found \(2,\)"):
        PerceptualDistance(file)
    torch.save({"model": layers[0]}, file)
    with pytest.raises(InputError, match="holds more than tensors"):
        PerceptualDistance(file)
    with pytest.raises(InputError, match="no such file"):
        PerceptualDistance(tmp_path / "none.pth")


def test_ddim_takes_the_published_steps_or_the_most_that_divide():
    assert [ddim_steps(steps) for steps in (200, 50, 60, 7)] == [50, 50, 30, 7]


def test_patches_that_the_networks_cannot_take_are_explained():
    settings = resolve(AutoencoderTrainingSettings, preset_name="tiny", assignments=["patch_size=[32, 30, 32]"])
    with pytest.raises(InputError, match=r"patch size \(32, 30, 32\).*multiple of \(4, 4, 4\); \(32, 32, 32\)"):
        AutoencoderTask(settings, volumes=Volumes())
    settings = resolve(DiffusionTrainingSettings, preset_name="tiny", assignments=["patch_size=[32, 40, 32]"])
    with pytest.raises(InputError, match=r"multiple of \(4, 16, 16\)"):
        DiffusionTask(settings, autoencoder=seeded_autoencoder(), volumes=Volumes(), organ="liver", stage="early")


@pytest.fixture(scope="module")
def overfit():
    """The benchmark, which does the same with a crop of 32 mm."""
    path = REPOSITORY / "benchmarks" / "overfit_generative.py"
    specification = importlib.util.spec_from_file_location("overfit_generative", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.long
def test_autoencoder_of_the_published_size_learns_a_real_crop_by_heart(overfit, test_data, tmp_path):
    volume = overfit.real_crop(test_data, edge=16)
    assert overfit.overfit_autoencoder(volume, steps=75, folder=tmp_path) <= overfit.L1_BAR


@pytest.mark.long
def test_diffusion_of_the_published_size_learns_one_noise_by_heart(overfit, test_data, tmp_path):
    volume = overfit.real_crop(test_data)[:, 8:24]
    assert overfit.overfit_diffusion(volume, steps=75, folder=tmp_path) <= overfit.NOISE_BAR


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A stored dataset of number 700, found through nnU-Net's variables."""
    root = tmp_path_factory.mktemp("dataset")
    write_stored(root / "pre" / "Dataset700_Small" / "generative", diameters_mm={"a": (6.0, 9.0), "b": (5.0,)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_preprocessed", str(root / "pre"))
        patch.setenv("nnUNet_results", str(root / "results"))
        yield root


SMALL = ["patch_size=[8, 8, 16]", "codes=64", "hidden_channels=4", "norm_groups=4", "discriminator_channels=2"]
SMALL += ["batch_size=1", "validation_crops=1", "log_every=1", "checkpoint_every=1"]


def train_small(*assignments, steps=2, **more):
    lines = []
    options = {"preset": "tiny", "steps": steps, "device": "cpu", "report": lines.append}
    train_autoencoder(700, assignments=[*SMALL, *assignments], **(options | more))
    return lines


def test_a_run_does_not_resume_with_other_settings_or_data(dataset, tmp_path):
    assert "2 steps" in train_small(output=tmp_path)[0]
    assert "all 2 steps are done" in train_small(output=tmp_path)[0]
    with pytest.raises(InputError, match=r"learning_rate was 0\.0003, now 0\.01"):
        train_small("learning_rate=0.01", output=tmp_path)
    with pytest.raises(InputError, match="training_cases"):
        train_small("training_cases=[a]", output=tmp_path)
    assert "resumes after step 2 of 3 steps" in train_small(output=tmp_path, steps=3)[0]
    assert [line["step"] for line in read_curve(tmp_path / "runs" / "autoencoder" / "curve.jsonl")] == [1, 2, 2, 3, 3]
    assert "1 steps" in train_small("learning_rate=0.01", output=tmp_path, steps=1, overwrite=True)[0]


def test_two_trainings_do_not_share_a_folder(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_WAIT_S", 0)
    with (
        RunFolder(tmp_path, "autoencoder").alone(),
        pytest.raises(InputError, match="runs/autoencoder: another process is training there"),
    ):
        train_small(output=tmp_path)


def test_damaged_checkpoint_is_explained(dataset, tmp_path):
    train_small(output=tmp_path, steps=1)
    checkpoint = tmp_path / "runs" / "autoencoder" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"last\.ckpt: not a checkpoint of a training.*start again with `overwrite`"):
        train_small(output=tmp_path)


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_divergence_keeps_the_last_good_checkpoint(what, dataset, tmp_path, monkeypatch):
    train_small(output=tmp_path, steps=2)
    perceptual, learn = AutoencoderTask._perceptual, AutoencoderTask.learn

    def broken(task, batch):
        figures = learn(task, batch)
        task.autoencoder.decoder.conv_last.bias.data.fill_(float("inf"))
        return figures

    if what == "loss":
        monkeypatch.setattr(AutoencoderTask, "_perceptual", lambda *arguments: perceptual(*arguments) * float("nan"))
    else:
        monkeypatch.setattr(AutoencoderTask, "learn", broken)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".ckpt", ".safetensors")}
    message = {"loss": "the loss became nan in step 3", "weights": r"conv_last\.bias became NaN or infinite by step 3"}
    with pytest.raises(DivergedError, match=message[what]):
        train_small(output=tmp_path, steps=4)
    assert {path: path.read_bytes() for path in before} == before


def test_signals_are_the_callers_again(dataset, tmp_path, monkeypatch):
    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    train_small(output=tmp_path, steps=1)
    assert handlers() == before
    monkeypatch.setattr(AutoencoderTask, "_perceptual", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(DivergedError):
        train_small(output=tmp_path, steps=2)
    assert handlers() == before


def test_too_little_gpu_memory_is_explained(dataset, tmp_path, monkeypatch):
    def learn(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AutoencoderTask, "learn", learn)
    with pytest.raises(InputError, match=r"patches of 8 x 8 x 16 and a batch of 4; try `batch_size` 2"):
        train_small("batch_size=4", output=tmp_path)
    with pytest.raises(InputError, match=r"try `patch_size` 64 64 64, or `assignments` precision=bf16"):
        train_small("patch_size=[96, 96, 96]", output=tmp_path)


def test_weights_say_where_they_come_from(dataset, tmp_path):
    train_small("validation_cases=[b]", "seed=5", "precision=bf16", output=tmp_path)
    description = json.loads((tmp_path / "autoencoder.json").read_text())
    source = description["source"]
    assert source["trained_on"]["dataset"] == "Dataset700_Small"
    assert source["trained_on"]["training_cases"] == ["a"]
    assert source["trained_on"]["validation_cases"] == ["b"]
    assert source["settings"]["seed"] == 5
    assert source["steps"] == 2
    assert source["validation"].keys() == {"l1", "mae_hu", "psnr_db", "ssim"}
    assert source["made_with"]["package"].startswith("nnunet-difftumor ")


def test_autoencoder_of_other_volumes_and_lesions_that_are_not_there_are_explained(dataset, tmp_path):
    train_small(output=tmp_path)
    weights = tmp_path / "autoencoder.safetensors"
    with pytest.raises(InputError, match="no liver lesion of at least 20 mm"):
        train_diffusion(700, organ="liver", stage="late", preset="tiny", output=tmp_path)
    model, description = load_autoencoder(weights)
    other = dataclasses.replace(description, volumes=Volumes(window_hu=(-100.0, 200.0)))
    save_weights(weights, model, description=other)
    with pytest.raises(InputError, match=r"was trained on .*-100\.0, 200\.0.*while"):
        train_diffusion(700, organ="liver", stage="early", preset="tiny", output=tmp_path)
    with pytest.raises(InputError, match=r"none\.safetensors: no such file; .*train-autoencoder.*download-weights"):
        train_diffusion(700, organ="liver", stage="early", autoencoder=tmp_path / "none.safetensors")


def test_dataset_that_is_not_preprocessed_is_explained(dataset):
    with pytest.raises(
        InputError, match=r"`dataset_id` 5: expected one Dataset005_NAME/generative.*preprocess-generative -d 5"
    ):
        train_autoencoder(5)
