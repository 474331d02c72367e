"""Every backbone in this process: its size, outputs, a step of nnU-Net's training, checkpoint, inference."""

import sys

import numpy as np
import pytest
import torch
from networks import ALL, PATCHES, batch_for, marked, needs_monai, trainer, trainer_class
from trainer_of import trainer_of

from nnunet_difftumor.backbones import BACKBONES
from nnunet_difftumor.backbones.monai_networks import UNetPlusPlus, seg_res_net, swin_unetr, unetr
from nnunet_difftumor.backbones.patch import check_patch, nearest_patch
from nnunet_difftumor.backbones.stu_net import BASE, LARGE, SMALL, STUNet
from nnunet_difftumor.errors import InputError

SMALLEST = [
    marked(f"nnUNetTrainer{name}") for name in ("SwinUNETRTiny", "UNETR", "SegResNet", "UNetPlusPlus", "STUNetSmall")
]
STRIDES = [(2, 2, 2)] * 5


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@needs_monai
@pytest.mark.parametrize(
    ("size", "published_millions"),
    [("tiny", 4.0), ("small", 15.7), ("base", 62.1)],  # Hu et al. (CVPR 2023), Figure 4, cut after one decimal
)
def test_swin_unetr_has_the_published_number_of_parameters(size, published_millions):
    # Background, liver, tumor.
    assert int(parameters(swin_unetr(1, 3, size=size)) / 1e5) / 10 == published_millions


@needs_monai
def test_other_networks_of_monai_have_the_numbers_of_parameters_that_the_docs_say():
    # UNETR's paper says 92.58 million, of an implementation before MONAI's; 14 classes, patch of 96.
    assert parameters(unetr(1, 14, patch_size=(96, 96, 96))) == 92_802_478
    assert parameters(seg_res_net(1, 3)) == 4_700_931
    assert parameters(UNetPlusPlus(1, 3, deep_supervision=True)) == 6_980_108


@pytest.mark.parametrize(("size", "published_millions"), [(SMALL, 14.60), (BASE, 58.26), (LARGE, 440.30)])
def test_stu_net_has_the_published_number_of_parameters_whatever_the_strides(size, published_millions):
    # Of the models that were published: one channel, 104 structures and background (Huang et al., 2023).
    with torch.device("meta"):  # without memory for the weights
        counts = {
            parameters(STUNet(1, 105, size=size, strides=strides, deep_supervision=True))
            for strides in (STRIDES, [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1)])
        }
    assert [round(count / 1e6, 2) for count in counts] == [published_millions]


@pytest.mark.slow(file_seconds=60)
# STU-Net-L, its momentum, its checkpoint and a copy would take 16 GB of memory.
@pytest.mark.parametrize("name", [marked(name) for name in BACKBONES if name != "nnUNetTrainerSTUNetLarge"])
def test_a_step_of_training_changes_the_network_and_its_checkpoint_holds_it(prepared_phantom, tmp_path, name):
    first = trainer(prepared_phantom, name)
    before = [parameter.detach().clone() for parameter in first.network.parameters()]
    assert np.isfinite(first.train_step(batch_for(first))["loss"])
    changed = [not torch.equal(old, new) for old, new in zip(before, first.network.parameters(), strict=True)]
    assert np.mean(changed) > 0.85
    # Training on several GPUs wants a gradient of all; where it does, nnU-Net lets the last output count a little.
    without_gradient = {
        key for key, value in first.network.named_parameters() if value.requires_grad and value.grad is None
    }
    assert without_gradient == ({"decoder.heads.0.weight", "decoder.heads.0.bias"} if "STUNet" in name else set())

    first.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    second = trainer(prepared_phantom, name)
    second.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_network_for_inference_is_built_without_a_trainer_and_gives_what_the_trained_one_gives(prepared_phantom, name):
    trained = trainer(prepared_phantom, name)
    images = batch_for(trained)["data"][:1]
    with torch.no_grad():
        trained.network.eval()
        trained.set_deep_supervision_enabled(False)
        expected = trained.network(images)
        # As nnU-Net's predictor does it.
        network = trainer_class(name).build_network_architecture(
            trained.plans_manager,
            trained.configuration_manager,
            1,
            trained.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )
        network.load_state_dict(trained.network.state_dict())
        network.eval()
        found = network(images)
    assert found.shape == (1, trained.label_manager.num_segmentation_heads, *PATCHES[name])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SMALLEST)
def test_outputs_of_training_have_the_shapes_that_nnunet_makes_targets_of(prepared_phantom, name):
    made = trainer(prepared_phantom, name)
    made.set_deep_supervision_enabled(True)
    batch = batch_for(made)
    with torch.no_grad():
        outputs = made.network(batch["data"])
    if not made.enable_deep_supervision:
        assert outputs.shape[2:] == batch["target"].shape[2:]
        return
    assert [output.shape[2:] for output in outputs] == [target.shape[2:] for target in batch["target"]]
    made.set_deep_supervision_enabled(False)
    with torch.no_grad():
        assert torch.equal(made.network(batch["data"]), outputs[0])


def test_stu_nets_scales_are_those_of_its_strides(prepared_phantom):
    def edit(plans):
        settings = plans["configurations"]["3d_fullres"]
        settings["patch_size"] = [24, 48, 48]
        settings["architecture"]["arch_kwargs"]["strides"] = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]

    made = trainer_of(prepared_phantom.preprocessed, trainer_class("nnUNetTrainerSTUNetSmall"), edit_plans=edit)
    quarter, eighth = [1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 8, 1 / 8]
    # Six stages, of which the plans have four; that of the last one is not supervised.
    assert made._get_deep_supervision_scales() == [[1, 1, 1], [1, 1 / 2, 1 / 2], quarter, eighth, eighth]
    assert np.isfinite(made.train_step(batch_for(made))["loss"])


@needs_monai
def test_outputs_of_unet_plus_plus_count_the_same(prepared_phantom):
    made = trainer(prepared_phantom, "nnUNetTrainerUNetPlusPlus")
    batch = batch_for(made)
    with torch.no_grad():
        outputs = made.network(batch["data"])
        each = [float(made.loss.loss(output, batch["target"][0])) for output in outputs]
        assert float(made.loss(outputs, batch["target"])) == pytest.approx(np.mean(each), rel=1e-5)


@needs_monai
@pytest.mark.parametrize(
    ("name", "patch", "said"),
    [
        ("SwinUNETRTiny", (64, 96, 112), "multiples of 32 x 32 x 32; the nearest that fits is 64 x 96 x 96: `difftumor "
         "prepare -d 501 --patch-size 64 96 96`"),
        ("SwinUNETRBase", (32, 32, 32), "single voxel.*64 x 64 x 64.*--patch-size 64 64 64`"),
        ("UNETR", (40, 96, 90), "multiples of 16 x 16 x 16.*--patch-size 32 96 96`"),
        ("SegResNet", (20, 32, 33), "multiples of 8 x 8 x 8.*--patch-size 16 32 32`"),
        ("UNetPlusPlus", (4, 32, 32), "multiples of 16 x 16 x 16.*--patch-size 16 32 32`"),
        ("STUNetSmall", (36, 32, 32), "multiples of 8 x 8 x 8.*--patch-size 32 32 32`"),
    ],
)  # fmt: skip
def test_patches_that_do_not_fit_are_refused_before_anything_is_written(prepared_phantom, name, patch, said):
    folder = prepared_phantom.results / f"nnUNetTrainer{name}__nnUNetPlansDiffTumor__3d_fullres" / "fold_3"
    with pytest.raises(InputError, match=f"^nnUNetTrainer{name}: configuration 3d_fullres has the patch .*{said}"):
        trainer(prepared_phantom, f"nnUNetTrainer{name}", patch_size=patch, fold=3)
    assert not folder.exists()


@pytest.mark.parametrize("name", ALL)
def test_2d_configurations_are_refused(prepared_phantom, name):
    def edit(plans):
        settings = plans["configurations"]["3d_fullres"]
        settings["patch_size"] = [64, 64]
        settings["architecture"]["arch_kwargs"]["strides"] = [[1, 1], [2, 2], [2, 2]]

    with pytest.raises(InputError, match=f"{name}: .* 64 x 64, but this network is three-dimensional; train 3d_full"):
        trainer_of(prepared_phantom.preprocessed, trainer_class(name), edit_plans=edit)


@pytest.mark.parametrize(
    ("patch", "multiple", "nearest"),
    [
        ((96, 96, 96), 32, [96, 96, 96]),
        ((112, 113, 111), 32, [96, 128, 96]),  # of two that are as near, the smaller
        ((5, 100, 47), 32, [32, 96, 32]),
        ((32, 40, 33), 32, [64, 64, 64]),
    ],
)
def test_nearest_patch_is_taken_by_the_network(patch, multiple, nearest):
    assert nearest_patch(patch, [multiple] * 3) == nearest
    check_patch(nearest, [multiple] * 3, trainer="T", configuration="3d_fullres", dataset="Dataset001_A")


@pytest.mark.parametrize("name", [name for name, module in BACKBONES.items() if module.endswith("monai_trainers")])
def test_without_monai_its_trainers_say_what_to_install(prepared_phantom, monkeypatch, name):
    made = trainer_class(name)
    for module in [module for module in sys.modules if module.split(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(InputError, match=r'pip install "nnunet-difftumor\[backbones\]"'):
        trainer_of(prepared_phantom.preprocessed, made)
