"""What the trainings of the generative models cost: measured on this machine, and estimated for GPUs.

A step of each training is run at full size, as `difftumor train-autoencoder` and `train-diffusion` run it, on noise
instead of scans. Measured are its floating-point operations (torch's FlopCounterMode, backward pass included), the CPU
seconds of one thread, and the memory that is kept for the backward pass. On a CPU a step is one crop in float32.

GPU hours are estimated: operations over the peak of the GPU in bfloat16 and SHARE of it. That share is an assumption.
The hours that the paper reports for its own code on A100s stand beside it. With --device cuda nothing is estimated:
steps are timed with the presets' own batch and precision.

Run: python benchmarks/training_cost.py (minutes on a free CPU); --table prints results/training_cost.json again.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from nnunet_difftumor.files import write_json
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig
from nnunet_difftumor.generative.training.autoencoder_task import AutoencoderTask
from nnunet_difftumor.generative.training.diffusion_task import DiffusionTask
from nnunet_difftumor.generative.training.fit import fit
from nnunet_difftumor.generative.training.run_folder import RunFolder
from nnunet_difftumor.generative.training.settings import (
    AutoencoderTrainingSettings,
    DiffusionTrainingSettings,
    preset,
    resolve,
)
from nnunet_difftumor.generative.training.task import TrainingTask, initial_weights
from nnunet_difftumor.generative.weights import Volumes

RESULTS = Path(__file__).parent / "results" / "training_cost.json"
PARTS = ("autoencoder", "autoencoder with discriminators", "diffusion")
PRESETS = ("paper", "code")
# Dense bfloat16 on tensor cores, in the vendor's data sheets (SXM).
PEAK_TFLOPS = {"A100": 312, "H100": 989}
# Convolutions with 16 to 64 channels fill tensor cores badly, and the operations between them wait for memory.
SHARE = 0.1
# Chen et al., CVPR 2024, supplement: 200 000 iterations of 4 crops on each of four A100s in a week; 60 000 of 10 on one
# in a day.
PAPER_A100_HOURS = {"autoencoder": (7 * 24 * 4, 200_000 * 4 * 4), "diffusion": (24, 60_000 * 10)}


class SameCrop(torch.utils.data.Dataset):
    """One crop for every number."""

    def __init__(self, crop: dict):
        self.crop = crop

    def __getitem__(self, _: int) -> dict:
        return self.crop


def measure(part: str, *, assignments: Iterable[str] = (), preset_name: str = "paper", device: str = "cpu") -> dict:
    """Costs of one step, the first one not counted.

    Args:
        part: one of PARTS.
        assignments: of settings, over the preset.
        preset_name: paper or code.
        device: cpu or cuda.

    Returns:
        crops; seconds (of the CPU, or on the wall for cuda); gigabytes (kept for the backward pass, or the GPU's peak);
        tflop, for cpu only.
    """
    steps = 2 if device == "cpu" else 12
    chosen = [f"steps={steps}", "validation_crops=1", "workers=0", *assignments]
    if part == "diffusion":
        settings = resolve(DiffusionTrainingSettings, preset_name=preset_name, assignments=chosen)
        task, crop = _diffusion(settings)
    else:
        start = 0 if part == PARTS[1] else steps
        chosen.append(f"discriminator_start={start}")
        settings = resolve(AutoencoderTrainingSettings, preset_name=preset_name, assignments=chosen)
        task = AutoencoderTask(settings, volumes=Volumes())
        crop = {"volume": _noise(1, *settings.patch_size), "slices": torch.zeros(3, dtype=torch.int64)}
    parts = getattr(settings, "accumulation", 1)
    found = _watch(task, device)
    with tempfile.TemporaryDirectory() as folder:
        crops = SameCrop(crop)
        run = RunFolder(Path(folder), "cost")
        fit(task, run=run, crops=crops, validation=crops, about={}, parts=parts, device=device, report=lambda _: None)
    counted = found[1:] if device == "cpu" else found[2:]
    mean = {key: sum(step[key] for step in counted) / len(counted) for key in counted[0]}
    return {"crops": settings.batch_size * parts, **mean}


def _watch(task: TrainingTask, device: str) -> list[dict]:
    """The list gets the costs of every step."""
    found, learn, update = [], task.learn, task.update

    def watched(batch):
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            figures = learn(batch)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            found.append({"seconds": seconds, "gigabytes": torch.cuda.max_memory_allocated() / 1e9})
            return figures
        kept, most = {}, [0]

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        def updated(*arguments, **named):
            # A backward pass frees what was kept for it.
            most[0] = max(most[0], sum(kept.values()))
            kept.clear()
            update(*arguments, **named)

        task.update = updated
        start = time.process_time()
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            figures = learn(batch)
        seconds = time.process_time() - start
        task.update = update
        found.append({"seconds": seconds, "gigabytes": most[0] / 1e9, "tflop": counter.get_total_flops() / 1e12})
        return figures

    task.learn = watched
    return found


def _diffusion(settings: DiffusionTrainingSettings) -> tuple[DiffusionTask, dict]:
    with initial_weights(0):
        autoencoder = Autoencoder(AutoencoderConfig())
        autoencoder.codebook.start(torch.randn(autoencoder.config.codes, autoencoder.config.latent_channels))
    tumor = torch.zeros(1, *settings.patch_size, dtype=torch.bool)
    middle = tuple(slice(n // 2 - 4, n // 2 + 4) for n in settings.patch_size)
    tumor[(0, *middle)] = True
    latent = [n // 4 for n in settings.patch_size]
    crop = {"volume": _noise(1, *settings.patch_size), "tumor": tumor, "noise": _noise(8, *latent), "step": 1}
    return DiffusionTask(settings, autoencoder=autoencoder, volumes=Volumes(), organ="liver", stage="early"), crop


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def trainings(parts: dict[str, dict]) -> Iterable[tuple[str, str, int, float]]:
    """Name, preset, crops and TFLOP of every training, on one GPU."""
    per_crop = {part: parts[part]["tflop"] / parts[part]["crops"] for part in PARTS}
    for name in PRESETS:
        first = preset(AutoencoderTrainingSettings, name)
        before = min(first.discriminator_start, first.steps)
        flops = first.batch_size * (before * per_crop[PARTS[0]] + (first.steps - before) * per_crop[PARTS[1]])
        yield "autoencoder", name, first.steps * first.batch_size, flops
        second = preset(DiffusionTrainingSettings, name)
        crops = second.steps * second.batch_size * second.accumulation
        yield "diffusion", name, crops, crops * per_crop["diffusion"]


def tables(result: dict) -> str:
    """Both tables of docs/publish_weights.md."""
    lines = [
        "| measured, per crop of 96 x 96 x 96 | TFLOP | CPU s, one thread | GB for the backward pass |",
        "|---|---|---|---|",
    ]
    for part, cost in result["parts"].items():
        crops = cost["crops"]
        values = cost["tflop"] / crops, cost["seconds"] / crops, cost["gigabytes"] / crops
        lines.append(f"| {part} | {values[0]:.2f} | {values[1]:.0f} | {values[2]:.1f} |")
    heads = [f"{gpu} hours (estimate)" for gpu in PEAK_TFLOPS]
    head = "A100 hours as fast as the paper's"
    lines += ["", f"| training, on one GPU | preset | crops | {' | '.join(heads)} | {head} |"]
    lines.append("|---|---|---|---|---|---|")
    for name, chosen, crops, tflop in trainings(result["parts"]):
        hours = [tflop / (peak * SHARE) / 3600 for peak in PEAK_TFLOPS.values()]
        paper_hours, paper_crops = PAPER_A100_HOURS[name]
        hours.append(paper_hours * crops / paper_crops)
        cells = [f"{hour:.0f}" if hour >= 10 else f"{hour:.1f}" for hour in hours]
        lines.append(f"| {name} | `{chosen}` | {crops:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paper_shares(result: dict) -> dict[str, float]:
    """Of the A100's peak, that the hours of the paper amount to."""
    shares = {}
    for name, chosen, crops, tflop in trainings(result["parts"]):
        if chosen == "paper":
            hours, paper_crops = PAPER_A100_HOURS[name]
            shares[name] = tflop / crops * paper_crops / (hours * 3600 * PEAK_TFLOPS["A100"])
    return shares


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--table", action="store_true", help="print the stored result, measure nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="gets the result of the CPU")
    parser.add_argument("--store", action="store_true", help="replace the result in benchmarks/results")
    args = parser.parse_args()
    if args.device == "cuda":
        for chosen in PRESETS:
            for part in PARTS:
                cost = measure(part, preset_name=chosen, device="cuda")
                kind = DiffusionTrainingSettings if part == "diffusion" else AutoencoderTrainingSettings
                hours = preset(kind, chosen).steps * cost["seconds"] / 3600
                print(
                    f"{part}, {chosen}, on {torch.cuda.get_device_name()}: {cost['seconds']:.3f} s a step of "
                    f"{cost['crops']} crops, {cost['gigabytes']:.1f} GB, {hours:.1f} hours for all steps",
                    flush=True,
                )
        return 0
    if args.table:
        result = json.loads(RESULTS.read_text())
    else:
        torch.set_num_threads(1)
        result = {
            "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
            "parts": {},
        }
        for part in PARTS:
            single = ["batch_size=1", "precision=32", *(["accumulation=1"] if part == "diffusion" else [])]
            result["parts"][part] = measure(part, assignments=single)
            print(part, result["parts"][part], flush=True)
        for path in ([RESULTS] if args.store else []) + ([args.json] if args.json else []):
            write_json(path, result)
    print(tables(result))
    for name, share in paper_shares(result).items():
        print(f"The paper's hours for the {name} are {100 * share:.2g} % of the A100's peak.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
