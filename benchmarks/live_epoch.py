"""What live diffusion tumors cost a training: an epoch with them in half of the samples over one of nnU-Net's own.

Both trainers run nnU-Net's loader, transforms and train_step on the same phantoms, with the same plans and network, in
turn. On a GPU (--device cuda) the server draws with networks of the published size and random weights, and must make at
least 20 tumors a second. On a CPU (--device cpu) a server that sleeps 10 ms per batch stands in for it. Exits 1 when
the median ratio is above the bar, or tumors are too slow, refused, or missing. A row with device, versions and commit
is added to live_epoch.csv in --results; --store names benchmarks/results.

The phantoms are made on all cores. Where --folder has those of an earlier call they are taken, also when it was carried
from another machine; its raw dataset is not needed then. Every 10 seconds a line says where the benchmark is. nnU-Net
imports SimpleITK, and nothing here calls it: PYTHONPATH=benchmarks/stand_ins lets all of it run without.

--small runs everything on a CPU in a minute, at shapes where times mean nothing: no row, and no bar of time.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from result_rows import FOLDER, UNTRACKED, append_rows, provenance

RATIO_BAR = 1.05
TUMORS_PER_S_BAR = 20.0
DATASET_ID, DATASET = 601, "Dataset601_Phantom"
PLANS, CONFIGURATION = "nnUNetPlansDiffTumor", "3d_fullres"
ORGAN_WEIGHTS = ("liver", "kidney", "pancreas")
CASES = 4  # healthy phantoms, and as many with tumors
SAY_EVERY_S = 10.0


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        spacing_mm: of the phantoms (z, y, x), as they are made and as they are trained on.
        patch_size: voxels (z, y, x).
        features: channels of the network's stages.
        iterations: of an epoch.
    """

    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    features: tuple[int, ...]
    iterations: int


# nnU-Net's usual patch: a smaller one costs less to augment and to train on, but as much to put tumors into. On a CPU
# coarser phantoms, a small network and few iterations, so that the benchmark takes minutes.
SCALES = {
    "cpu": Scale((2.0, 2.0, 2.0), (128, 128, 128), (8, 16, 32, 64), 8),
    "cuda": Scale((1.0, 1.0, 1.0), (128, 128, 128), (32, 64, 128, 256, 320, 320), 100),
}
SMALL = Scale((4.0, 3.0, 3.0), (32, 32, 32), (8, 16, 32), 4)


@dataclass(frozen=True)
class EpochRow:
    """Medians of the runs; seconds per epoch."""

    server: str
    iterations: int
    runs: int
    stock_s: float
    live_s: float
    ratio: float
    synthetic_share: float
    tumors_per_s: float
    waited_p95_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--small", action="store_true", help="small shapes, to see that everything runs; CPU only")
    parser.add_argument("--iterations", type=int, help="of an epoch (default: 8 on a CPU, 100 on a GPU)")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each trainer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of the prepared phantoms: taken if they are there, else made")
    parser.add_argument("--results", type=Path, default=UNTRACKED, help="folder of live_epoch.csv (%(default)s)")
    parser.add_argument("--store", action="store_true", help="add the row to benchmarks/results")
    args = parser.parse_args()
    if args.small and (args.device != "cpu" or args.store):
        parser.error("--small is for the CPU, and its times are not worth storing")
    scale = SMALL if args.small else SCALES[args.device]
    args.iterations = args.iterations or scale.iterations
    with tempfile.TemporaryDirectory() as temporary:
        root = (args.folder or Path(temporary)).absolute()
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = str(root / name)
            (root / name).mkdir(parents=True, exist_ok=True)
        os.environ["nnUNet_n_proc_DA"] = str(args.workers)
        with saying(since("makes and prepares phantoms")):
            dataset = prepared(root, scale)
        return compare(dataset, root, scale, args)


def prepared(root: Path, scale: Scale) -> Path:
    """The preprocessed phantoms, made if there are none, with settings for live tumors of all sizes.

    Raises:
        ValueError: if those that are there have another voxel size.
    """
    import torch

    folder = root / "preprocessed" / DATASET
    if not (folder / "difftumor.json").is_file():
        # Late, since with phantoms that are there they are not needed.
        from phantom_dataset import write_phantoms

        from nnunet_difftumor.preparation.prepare import prepare

        if not (root / "raw" / DATASET).is_dir():
            write_phantoms(DATASET_ID, cases=CASES, spacing_mm=scale.spacing_mm)
        processes = os.cpu_count() or 1
        prepare(DATASET_ID, spacing_mm=scale.spacing_mm, patch_size=scale.patch_size, processes=processes)
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    spacing_mm = tuple(plans["configurations"][CONFIGURATION]["spacing"])
    if spacing_mm != scale.spacing_mm:
        raise ValueError(f"{root}: its phantoms have {spacing_mm} mm, expected {scale.spacing_mm}; name another folder")
    weights = root / "weights"
    if not weights.is_dir():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            write_random_weights(weights)
    settings = json.loads((folder / "difftumor.json").read_text())
    live = settings["live"] | {"weights_folder": str(weights)}
    settings |= {"source": "live", "live": live, "shares": {"real": 0.5, "synthetic": 0.5, "healthy": 0.0}}
    (folder / "difftumor.json").write_text(json.dumps(settings))
    return folder


def write_random_weights(folder: Path) -> None:
    """Networks of the published size: random weights decide the numbers, not the time."""
    from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
    from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
    from nnunet_difftumor.generative.weights import Description, DiffusionSettings, codebook_sha256, save_weights
    from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file

    autoencoder, unet = Autoencoder(), UNet()
    codes = autoencoder.codebook.embeddings
    codes.normal_()
    save_weights(
        folder / AUTOENCODER_FILE,
        autoencoder,
        description=Description(
            "autoencoder", asdict(AutoencoderConfig()), codebook_range=(codes.min().item(), codes.max().item())
        ),
    )
    samplers = {"early": (4, "ddpm", 4), "late": (200, "ddim", 50)}
    for organ in ORGAN_WEIGHTS:
        for stage, (steps, sampler, taken) in samplers.items():
            settings = DiffusionSettings(organ, stage, steps, sampler, taken, codebook_sha256(codes))
            description = Description("diffusion", asdict(UNetConfig()), diffusion=settings)
            save_weights(folder / diffusion_file(organ, stage), unet, description=description)


@contextmanager
def running(trainer_class: type, dataset: Path, scale: Scale, device: str, log: Path) -> Iterator:
    """A trainer whose server and workers run."""
    import torch
    from batchgenerators.utilities.file_and_folder_operations import load_json

    from nnunet_difftumor.trainers.tiny import shrink_plans

    with saying(since(f"{trainer_class.__name__}: starts trainer, server and workers")):
        plans = load_json(str(dataset / f"{PLANS}.json"))
        shrink_plans(plans, CONFIGURATION, patch_size=scale.patch_size, features=scale.features)
        trainer = trainer_class(
            {**plans, "continue_training": False},
            CONFIGURATION,
            0,
            load_json(str(dataset / "dataset.json")),
            torch.device(device),
        )
        trainer.initialize()
        live = trainer.synthesis.live if hasattr(trainer, "synthesis") else None
        if live is not None:
            live.start(device=device, gpu=0, folder=log, rank=0)
        loaders = trainer.get_dataloaders()
    try:
        yield trainer, loaders[0]
    finally:
        for loader in loaders:
            loader._finish()
        if live is not None:
            live.stop()


def epoch(trainer, loader, iterations: int) -> tuple[float, list[dict]]:
    """Seconds of an epoch, and its batches' records of synthetic samples."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer.network.train()
    samples, start, doing = [], time.perf_counter(), ["starts"]
    with saying(lambda: f"{type(trainer).__name__}: {doing[0]}, after {time.perf_counter() - start:.0f} s"):
        for number in range(1, iterations + 1):
            doing[0] = f"waits for batch {number} of {iterations}"
            batch = next(loader)
            samples += [{**sample, "of": len(batch["keys"])} for sample in batch.get("samples", [])]
            doing[0] = f"trains on batch {number} of {iterations}"
            nnUNetTrainer.train_step(trainer, batch)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - start, samples


def since(what: str) -> Callable[[], str]:
    """What is done, with the seconds from now on."""
    start = time.perf_counter()
    return lambda: f"{what}, after {time.perf_counter() - start:.0f} s"


@contextmanager
def saying(line: Callable[[], str], *, every_s: float = SAY_EVERY_S) -> Iterator[None]:
    """Prints a line now and then, also while something hangs."""
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(every_s):
            print(line(), flush=True)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def compare(dataset: Path, root: Path, scale: Scale, args: argparse.Namespace) -> int:
    import numpy as np
    import sleeping_renderer
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_difftumor.pipeline.live import synthesis
    from nnunet_difftumor.trainers.difftumor import nnUNetTrainerDiffTumor

    if args.device == "cpu":
        synthesis.FACTORY = sleeping_renderer.FACTORY
    seconds: dict[type, list[float]] = {nnUNetTrainer: [], nnUNetTrainerDiffTumor: []}
    samples: list[dict] = []
    speeds = []
    for run in range(args.runs):
        for trainer_class, times in seconds.items():
            with running(trainer_class, dataset, scale, args.device, root / "log") as (trainer, loader):
                epoch(trainer, loader, args.iterations)  # batches that were made before, kernels that are chosen
                taken, made = epoch(trainer, loader, args.iterations)
                times.append(taken)
                samples += made
                if hasattr(trainer, "synthesis"):
                    time.sleep(3)  # until the server is asked for its account
                    account = trainer.synthesis.live.keeper.status()
                    speeds.append(1000 / account["render_ms_per_tumor"]["p50"])
            print(f"run {run + 1}: {trainer_class.__name__:<24} {taken:.2f} s", flush=True)
    stock, live = (median(times) for times in seconds.values())
    drawn = len(samples)
    row = EpochRow(
        server="sleeps 10 ms per batch" if args.device == "cpu" else "published size, random weights",
        iterations=args.iterations,
        runs=args.runs,
        stock_s=stock,
        live_s=live,
        ratio=live / stock,
        synthetic_share=drawn / (args.runs * args.iterations * samples[0]["of"]),
        tumors_per_s=median(speeds),
        waited_p95_ms=float(np.quantile([sample["waited_ms"] for sample in samples], 0.95)),
    )
    print(json.dumps(asdict(row), indent=2))
    reached = sum(sample["in_target"] for sample in samples) / drawn
    refused = sum(reason.startswith("live") for sample in samples for reason in sample["refused"])
    bars = {
        f"{reached:.3f} of the synthetic samples have their tumor (bar 0.95)": reached >= 0.95,
        f"{refused} tumors refused by the server (bar 0)": refused == 0,
    }
    if not args.small:
        bars[f"epoch {row.ratio:.3f} times nnU-Net's own (bar {RATIO_BAR})"] = row.ratio <= RATIO_BAR
    if args.device == "cuda":
        key = f"{row.tumors_per_s:.1f} tumors/s (bar {TUMORS_PER_S_BAR:g})"
        bars[key] = row.tumors_per_s >= TUMORS_PER_S_BAR
    for what, held in bars.items():
        print(f"{'held  ' if held else 'MISSED'} {what}")
    if not args.small:
        results = FOLDER if args.store else args.results
        append_rows(results / "live_epoch.csv", [row], provenance(args.device))
    return int(not all(bars.values()))


if __name__ == "__main__":
    sys.exit(main())
