"""Training with live tumors through nnU-Net's own loaders: the same tumors whatever the workers, mixes, curricula,
banks, and two ranks."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import stand_in_renderer
import torch
import torch.distributed as dist
from live_training import consistent, drawn, loader_of, make_trainer, samples_of, voxels, write_settings
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn.parallel import DistributedDataParallel
from trainer_of import trainer_of

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.pictures.montage import Montage
from nnunet_difftumor.pictures.replay import RunReplay
from nnunet_difftumor.pipeline.live import synthesis as synthesis_module
from nnunet_difftumor.preparation.lesion_bank import make_bank
from nnunet_difftumor.runs.synthesis_log import read_log
from nnunet_difftumor.synthesis.networks import view as network_view
from nnunet_difftumor.trainers import ON
from nnunet_difftumor.trainers.composed import composed_trainer
from nnunet_difftumor.trainers.tiny import shrink_plans

pytestmark = pytest.mark.slow(file_seconds=150)
# The real networks, shown small patches, to be quick.
EARLY = {"size_weights": {"tiny": 1.0, "small": 1.0}}


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(synthesis_module, "FACTORY", stand_in_renderer.FACTORY)


@pytest.fixture
def small_patches(monkeypatch):
    monkeypatch.setattr(network_view, "CONTEXT_MM", 4.0)


def batches_of(dataset, folder, *, workers: int, count: int, monkeypatch, epoch: int = 0, **settings) -> list[dict]:
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    trainer = make_trainer(dataset.preprocessed, write_settings(dataset.preprocessed, folder, **settings), epoch=epoch)
    with loader_of(trainer, folder / "log") as loader:
        return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_every_synthetic_sample_has_its_tumor_with_every_start_method(
    prepared_phantom, tmp_path, monkeypatch, stand_ins, start_method
):
    context = multiprocessing.get_context(start_method)
    for name in ("Process", "Queue", "Event"):
        monkeypatch.setattr(f"batchgenerators.dataloading.multi_threaded_augmenter.{name}", getattr(context, name))
    made = batches_of(prepared_phantom, tmp_path, workers=1, count=8, monkeypatch=monkeypatch)
    assert all(consistent(batch) for batch in made)
    samples = samples_of(made)
    assert len(samples) >= 8 and all(sample["in_target"] and sample["source"] == "live" for sample in samples)
    assert {tumor["renderer"] for sample in samples for tumor in sample["tumors"]} == {"diffusion"}


def test_specs_labels_and_order_do_not_depend_on_workers(prepared_phantom, tmp_path, monkeypatch, stand_ins):
    expected = None
    for workers in (1, 4):
        live = {"timeout_s": 600.0}
        made = batches_of(prepared_phantom, tmp_path, workers=workers, count=12, monkeypatch=monkeypatch, live=live)
        assert [batch["index"] for batch in made] == list(range(1, 13))
        found = [drawn(batch) for batch in made]
        expected = expected or found
        assert found == expected, f"{workers} workers"


@pytest.mark.parametrize(("source", "least"), [("handcrafted", 2.0), ("live", 3.0)])
def test_what_is_too_faint_is_drawn_again_whatever_the_workers(
    prepared_phantom, tmp_path, monkeypatch, stand_ins, source, least
):
    settings = {"source": source, "live": {"timeout_s": 600.0}}
    expected = None
    for workers in (1, 2):
        made = batches_of(
            prepared_phantom, tmp_path, workers=workers, count=12, monkeypatch=monkeypatch,
            minimum_contrast_to_noise=least, **settings,
        )  # fmt: skip
        found = [drawn(batch) for batch in made]
        expected = expected or found
        assert found == expected and all(consistent(batch) for batch in made), f"{workers} workers"
    samples = samples_of(made)
    reason = f"contrast is less than {least:g} times the noise"
    again = [sample for sample in samples if any(reason in text for text in sample["refused"])]
    assert again and any(sample["tumors"] for sample in again) and not any(sample["faint"] for sample in samples)
    anything = samples_of(
        batches_of(prepared_phantom, tmp_path, workers=1, count=12, monkeypatch=monkeypatch, **settings)
    )
    unchanged = [(a["tumors"] == b["tumors"]) for a, b in zip(anything, samples, strict=True) if b not in again]
    assert unchanged and all(unchanged)


def test_voxels_do_not_depend_on_workers_when_deterministic(prepared_phantom, tmp_path, monkeypatch, small_patches):
    """With the real networks: what else they draw at the same time must not matter."""
    expected, live = None, {"deterministic": True, "timeout_s": 600.0}
    for workers in (1, 4):
        made = batches_of(
            prepared_phantom, tmp_path, workers=workers, count=4, monkeypatch=monkeypatch, live=live, **EARLY
        )
        found = [(drawn(batch), voxels(batch)) for batch in made]
        expected = expected or found
        assert found == expected, f"{workers} workers"
    assert len({voxel for _, voxel in expected}) == 4 and len(samples_of(made)) >= 3


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_voxels_from_a_finished_bank_do_not_depend_on_workers(prepared_phantom, tmp_path, monkeypatch, share):
    """Alone, and mixed with hand-crafted tumors."""
    make_bank(501, per_case=2, output=tmp_path / "bank", report=lambda line: None)
    settings = {"source": "bank", "bank_folder": str(tmp_path / "bank"), "handcrafted_share": share}
    expected = None
    for workers in (1, 4):
        made = batches_of(prepared_phantom, tmp_path, workers=workers, count=8, monkeypatch=monkeypatch, **settings)
        found = [(drawn(batch), voxels(batch)) for batch in made]
        expected = expected or found
        assert found == expected, f"{workers} workers"
    assert {sample["source"] for sample in samples_of(made)} == ({"bank", "handcrafted"} if share else {"bank"})


def test_hand_crafted_and_live_tumors_have_the_same_places(prepared_phantom, tmp_path, monkeypatch, stand_ins):
    by_hand, live = (
        batches_of(prepared_phantom, tmp_path, workers=0, count=6, monkeypatch=monkeypatch, source=source)
        for source in ("handcrafted", "live")
    )
    places = [
        [[tumor["centre_mm"], tumor["semi_axes_mm"], tumor["seed"]] for tumor in sample["tumors"]]
        for made in (by_hand, live)
        for sample in samples_of(made)
    ]
    half = len(places) // 2
    assert half >= 5
    for all_of_them, asked in zip(places[:half], places[half:], strict=True):
        assert asked and all(tumor in all_of_them for tumor in asked)
    # Those that no crop can show were not asked for, and nothing else is missing.
    assert places[:half] != places[half:]
    for one, other in zip(by_hand, live, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one["target"], other["target"], strict=True))


def test_the_share_of_hand_crafted_tumors_is_as_asked(prepared_phantom, tmp_path, monkeypatch, stand_ins):
    made = batches_of(prepared_phantom, tmp_path, workers=2, count=40, monkeypatch=monkeypatch, handcrafted_share=0.3)
    sources = [sample["source"] for sample in samples_of(made)]
    assert len(sources) > 30 and 0.15 < sources.count("handcrafted") / len(sources) < 0.45
    renderers = {(s["source"], tumor["renderer"]) for s in samples_of(made) for tumor in s["tumors"]}
    assert renderers == {("handcrafted", "handcrafted"), ("live", "diffusion")}


def test_the_curriculum_changes_sizes_with_the_epoch(prepared_phantom, tmp_path, monkeypatch, stand_ins):
    curriculum = [{"from_epoch": 1, "size_weights": {"small": 1}}, {"from_epoch": 2, "size_weights": {"medium": 1}}]
    made = batches_of(
        prepared_phantom, tmp_path, workers=1, count=12, monkeypatch=monkeypatch, curriculum=curriculum,
        size_weights={"tiny": 1},
    )  # fmt: skip
    per_epoch = 4
    for epoch, size in enumerate(("tiny", "small", "medium")):
        sizes = {
            tumor["size_class"] for s in samples_of(made[epoch * per_epoch :][:per_epoch]) for tumor in s["tumors"]
        }
        assert sizes == {size}


def test_look_alikes_are_hand_crafted_and_have_no_label(prepared_phantom, tmp_path, monkeypatch, stand_ins):
    made = batches_of(
        prepared_phantom, tmp_path, workers=0, count=6, monkeypatch=monkeypatch, look_alike_probability=1.0
    )
    look_alikes = [lesion for sample in samples_of(made) for lesion in sample["look_alikes"]]
    assert look_alikes and {lesion["renderer"] for lesion in look_alikes} == {"handcrafted"}
    assert all(consistent(batch) for batch in made)


def test_the_ring_keeps_the_newest_lesions_and_is_a_bank(prepared_phantom, tmp_path, monkeypatch, stand_ins):
    bank = str(tmp_path / "bank")
    batches_of(
        prepared_phantom, tmp_path, workers=1, count=24, monkeypatch=monkeypatch, live={"ring": 3}, bank_folder=bank
    )
    files = sorted((tmp_path / "bank").rglob("*.lesion.npz"))
    counts = {folder: sum(file.parent == folder for file in files) for folder in {file.parent for file in files}}
    assert len(counts) == 4 and set(counts.values()) == {3}
    made = batches_of(
        prepared_phantom, tmp_path, workers=1, count=6, monkeypatch=monkeypatch, source="bank", bank_folder=bank
    )
    samples = samples_of(made)
    assert samples and all(sample["in_target"] and sample["source"] == "bank" for sample in samples)


def test_missing_weights_stop_a_training_before_it_begins(prepared_phantom, tmp_path, stand_ins):
    settings = write_settings(prepared_phantom.preprocessed, tmp_path)
    (tmp_path / "weights" / "kidney_late.safetensors").unlink()
    with pytest.raises(
        InputError, match=r'kidney_late.safetensors not found.*download-weights.*"weights_folder"'
    ) as caught:
        make_trainer(prepared_phantom.preprocessed, settings).run_training()
    assert caught.value.__context__ is None  # one sentence, not the same one twice


def test_an_organ_without_models_of_its_own_needs_a_choice(prepared_phantom, tmp_path, stand_ins):
    organ = {"name": "spleen", "organ_labels": [1], "tumor_label": 2}
    settings = write_settings(prepared_phantom.preprocessed, tmp_path, organs=[organ])
    with pytest.raises(InputError, match=r"organ spleen: has no diffusion models .*weights_organs"):
        make_trainer(prepared_phantom.preprocessed, settings).on_train_start()


def test_weights_of_an_organ_that_the_dataset_does_not_have_are_an_error(prepared_phantom, tmp_path):
    settings = write_settings(prepared_phantom.preprocessed, tmp_path, live={"weights_organs": {"spleen": "liver"}})
    with pytest.raises(
        InputError, match=r'"weights_organs" in "live" of .* names spleen, expected some of liver, kidney'
    ):
        make_trainer(prepared_phantom.preprocessed, settings).on_train_start()


@pytest.mark.parametrize(
    ("live", "named"),
    [
        ({"weights_folder": "/none"}, r"^/none: .* not found .*download-weights"),
        ({"sampler_steps": 3}, r"^`sampler_steps` is 3, which does not divide the 10 steps"),
        ({"weights_organs": {"liver": "kidny"}}, r"^\"weights_organs\" in .* is 'kidny', .* is kidney meant"),
    ],
)
def test_mistakes_in_live_settings_are_named_before_anything_is_said_of_the_data(
    prepared_phantom, copy_of_prepared_phantom, tmp_path, stand_ins, live, named
):
    """Whatever the data are, and whether the training would continue with them."""
    settings = write_settings(prepared_phantom.preprocessed, tmp_path, live=live)
    next((copy_of_prepared_phantom / "nnUNetPlansDiffTumor_3d_fullres").glob("*_seg.b2nd")).write_bytes(b"")
    with pytest.raises(InputError, match=named):
        make_trainer(copy_of_prepared_phantom, settings).on_train_start()
    sound = write_settings(prepared_phantom.preprocessed, tmp_path / "sound")
    with pytest.raises(InputError, match=r"the training does not begin: .* has 0 bytes"):
        make_trainer(copy_of_prepared_phantom, sound).on_train_start()


def test_a_whole_training_says_what_it_takes_and_can_be_replayed(
    prepared_phantom, copy_of_prepared_phantom, tmp_path, monkeypatch, small_patches
):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    live = {"deterministic": True, "timeout_s": 600.0}
    settings = write_settings(copy_of_prepared_phantom, tmp_path, live=live, **EARLY)
    (copy_of_prepared_phantom / "difftumor.json").write_text(settings.read_text())
    trainer = make_trainer(copy_of_prepared_phantom, settings)
    trainer.num_epochs = 1
    said = []
    trainer.print_to_log_file = lambda *words, **_: said.append(" ".join(map(str, words)))
    trainer.run_training()
    text = "\n".join(said)
    weights = trainer.synthesis.live.weights
    assert "live, drawn by diffusion models while training, deterministic" in text
    assert all(file["sha256"][:12] in text for file in weights)
    assert "Synthesis server: running, 0 restarts" in text
    assert trainer.synthesis.live.keeper.process.poll() is not None
    run = json.loads((Path(trainer.output_folder) / "synthesis_log" / "run_rank_0.json").read_text())
    assert [file["sha256"] for file in run["weights"]] == [file["sha256"] for file in weights]
    logged = next(sample for sample in read_log(trainer.output_folder, 0) if sample["source"] == "live")
    sample = RunReplay(trainer.output_folder).sample(logged["number"])
    assert sample.logged == logged and sample.reproduced
    # As of a run on a GPU, replayed where there is none.
    settings = Path(trainer.output_folder) / "difftumor.json"
    record = json.loads(settings.read_text())
    record["live"]["device"] = "cuda"
    settings.write_text(json.dumps(record))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert RunReplay(trainer.output_folder).sample(logged["number"]).reproduced


def _rank(rank: int, trainer_class: type, dataset: Path, settings: Path, folder: Path, port: int, queue) -> None:
    """One process of a distributed training on CPUs: nnU-Net's own set-up is for CUDA alone."""
    synthesis_module.FACTORY = stand_in_renderer.FACTORY
    trainer = trainer_of(
        dataset, trainer_class, settings=settings, edit_plans=lambda plans: shrink_plans(plans, "3d_fullres")
    )
    trainer.local_rank = rank
    # A trainer that finds a group takes CUDA.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    trainer.is_ddp = True
    trainer.loss = trainer._build_loss()
    trainer.network = DistributedDataParallel(trainer.network)
    with loader_of(trainer, folder) as loader:
        batches = [next(loader) for _ in range(4)]
        losses = [float(nnUNetTrainer.train_step(trainer, batch)["loss"]) for batch in batches]
        weights = torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()]).numpy()
        server = trainer.synthesis.live.keeper.process.pid
        queue.put((rank, [drawn(batch) for batch in batches], losses, weights, server))
    dist.destroy_process_group()


def test_two_ranks_of_a_composed_trainer_see_different_samples(prepared_phantom, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    settings = write_settings(prepared_phantom.preprocessed, tmp_path)
    trainer_class = composed_trainer(ON + "nnUNetTrainerVanillaAdam")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dataset = prepared_phantom.preprocessed
    ranks = [
        context.Process(
            target=_rank, args=(rank, trainer_class, dataset, settings, tmp_path / f"log_{rank}", port, queue)
        )
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = sorted((queue.get(timeout=120) for _ in ranks), key=lambda told: told[0])
    for process in ranks:
        process.join(30)
        assert process.exitcode == 0
    (_, first, first_losses, first_weights, one), (_, second, second_losses, second_weights, other) = found
    assert np.isfinite([*first_losses, *second_losses]).all()
    # The same weights after steps on different samples: gradients were averaged.
    assert np.array_equal(first_weights, second_weights)
    assert all(a[0] == b[0] and a != b for a, b in zip(first, second, strict=True))
    assert one != other


def test_prepared_settings_that_ask_for_live_tumors_can_be_previewed(
    prepared_phantom, copy_of_prepared_phantom, tmp_path, stand_ins
):
    settings = write_settings(copy_of_prepared_phantom, tmp_path, **EARLY)
    (copy_of_prepared_phantom / "difftumor.json").write_text(settings.read_text())
    montage = Montage(copy_of_prepared_phantom, configuration="3d_fullres")
    samples = list(montage.mix(3))
    assert len(samples) == 3 and all(sample.outcome.source == "live" and sample.panel for sample in samples)


def test_a_preview_draws_on_the_cpu_where_the_training_shall_draw_on_a_gpu(
    prepared_phantom, copy_of_prepared_phantom, tmp_path, monkeypatch, small_patches
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    weights = str(tmp_path / "weights")
    settings = write_settings(
        copy_of_prepared_phantom, tmp_path, live={"weights_folder": weights, "device": "cuda"}, **EARLY
    )
    (copy_of_prepared_phantom / "difftumor.json").write_text(settings.read_text())
    assert main(["preview", "-d", "501", "-o", str(tmp_path / "preview")]) == 0
    record = json.loads((tmp_path / "preview" / "preview.json").read_text())
    tumors = [tumor for row in record["pictures"]["mix"].values() for sample in row for tumor in sample["tumors"]]
    assert tumors and {tumor["spec"]["renderer"] for tumor in tumors} == {"diffusion"}
