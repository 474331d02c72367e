"""What an early diffusion tumor costs on a CPU, beside the public code's steps in eager PyTorch (public_steps.py).

Networks of the published size with random weights, a patch of 96^3, 4 steps, 2 threads. Both run in turn, with the same
weights, volume and noise. Ratios are those of wall time, which nothing else on the machine may stretch; CPU seconds
stand beside. Run by synthesis_cpu.py --renderer diffusion.
"""

import copy
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import public_steps
import torch
from blending import blend
from torch import nn

from nnunet_difftumor.files import write_json
from nnunet_difftumor.generative.diffusion.fast import FastSampler
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import sample_ddpm
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet
from nnunet_difftumor.kernels import vector_quantize

RESULTS = Path(__file__).parent / "results" / "diffusion_cpu.json"
THREADS, EDGE, STEPS, SIGMA_VOXELS = 2, 96, 4, 2.0
STAGES = ("encode", "U-Net", "lookup", "decode")
# Percent of the public code's time, as measured with it.
PUBLIC_SHARES = dict(zip(STAGES, (4, 23, 26, 47), strict=True))
LOOKUP_BAR, TUMOR_BAR, TUMOR_STRETCH, BFLOAT16_BAR = 20, 2.0, 2.5, 3.5
LOOKUP_MB_BAR, TUMOR_MB_BAR = 100, 1200
EXACT_BAR, BFLOAT16_ERROR_BAR, QUANTIZATION_BAR = 1e-5, 2e-2, 1e-6
WINDOW_WIDTH_HU = 425.0
# Kinds of time in a clock.
CPU, WALL = 0, 1


def networks() -> LatentDiffusion:
    """Of the published size, with random weights of about unit gain."""
    rng = np.random.default_rng(0)
    model = LatentDiffusion(_filled(Autoencoder(), rng), _filled(UNet(), rng), steps=STEPS)
    return model.eval()


@torch.no_grad()
def _filled(network: nn.Module, rng: np.random.Generator) -> nn.Module:
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.dtype == torch.bool or name == "frequencies":
            continue
        values = rng.standard_normal(tuple(tensor.shape))
        if tensor.ndim > 1 and not name.startswith(("codebook.", "position_bias.")):
            values /= np.sqrt(np.prod(tensor.shape[1:]))
        elif tensor.ndim == 1:
            values = values * 0.2 + name.endswith("weight")
        tensor.copy_(torch.from_numpy(values))
    return network


def inputs(edge: int = EDGE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A noisy volume (1, 1, z, x, y), a ball of 16 voxels as tumor, and noises (5, 1, 8, d, h, w)."""
    rng = np.random.default_rng(1)
    volume = torch.from_numpy(rng.normal(0.3, 0.1, (1, 1, edge, edge, edge)).astype(np.float32).clip(-1, 1))
    distance = sum((axis - edge / 2) ** 2 for axis in np.ogrid[:edge, :edge, :edge])
    noises = rng.standard_normal((STEPS + 1, 1, 8, *[edge // 4] * 3)).astype(np.float32)
    return volume, torch.from_numpy(distance <= 64)[None, None], torch.from_numpy(noises)


class Clock:
    """CPU and wall seconds of each stage, and of the whole."""

    def __init__(self):
        self.seconds: dict[str, tuple[float, float]] = {}

    def __call__(self, stage: str, run: Callable[[], object]):
        cpu, wall = time.process_time(), time.perf_counter()
        result = run()
        self.seconds[stage] = time.process_time() - cpu, time.perf_counter() - wall
        return result

    def total(self, kind: int) -> float:
        return sum(seconds[kind] for seconds in self.seconds.values())


def public(model: LatentDiffusion, edge: int = EDGE) -> tuple[Clock, dict[str, torch.Tensor]]:
    """The baseline, timed."""
    clock, (volume, tumor, noises) = Clock(), inputs(edge)
    with torch.no_grad():
        condition = clock("encode", lambda: public_steps.condition(model, volume, tumor))
        latent = clock("U-Net", lambda: public_steps.sample(model, condition, noises))
        codes = model.autoencoder.codebook.embeddings
        vectors = public_steps.unscaled(model, latent)
        indices, embeddings = clock("lookup", lambda: public_steps.look_up(codes, vectors))
        decoded = clock("decode", lambda: public_steps.decode(model.autoencoder, embeddings))
        made = clock("blend", lambda: public_steps.blend(volume, decoded, tumor, sigma_voxels=SIGMA_VOXELS))
    return clock, {"condition": condition, "latent": latent, "indices": indices, "decoded": decoded, "made": made}


def own(sampler: FastSampler, edge: int = EDGE) -> tuple[Clock, dict[str, torch.Tensor]]:
    """Our path, timed: what `FastSampler.draw` does, stage by stage."""
    model, clock, (volume, tumor, noises) = sampler.model, Clock(), inputs(edge)
    dtype = model.unet.conv_first.weight.dtype
    with torch.inference_mode():
        condition = clock("encode", lambda: model.condition(volume, tumor))

        def denoise(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            tables = model.unet.tables(steps, depth=noisy.shape[2])
            return model.unet(noisy.to(dtype), steps, condition=condition.to(dtype), tables=tables).float()

        latent = clock("U-Net", lambda: sample_ddpm(denoise, model.schedule, iter(noises).__next__))
        scaled = (latent + 1) / 2 * model.code_range + model.code_min
        found = clock("lookup", lambda: model.autoencoder.codebook(scaled))
        decoded = clock("decode", lambda: model.autoencoder.decode_embeddings(found.embeddings))
        sigma = torch.tensor(SIGMA_VOXELS)
        made = clock("blend", lambda: (blend(volume, decoded, tumor, sigma_voxels=sigma) + 1) / 2)
    return clock, {"condition": condition, "latent": latent, "indices": found.indices, "decoded": decoded, "made": made}


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def measure(repeats: int) -> dict:
    """Everything that is printed and stored."""
    torch.set_num_threads(THREADS)
    # Two, because the sampler stores its own model's weights in another order.
    model, sampler = networks(), FastSampler(networks())
    half = FastSampler(networks(), bfloat16=True) if has_bfloat16() else None
    rounds = []
    public(model, 32), own(sampler, 32)
    for number in range(repeats):
        (theirs, seen), (ours, found) = public(model), own(sampler)
        quick = own(half)[0] if half else None
        assert torch.equal(seen["indices"], found["indices"]) or relative(found["latent"], seen["latent"]) < 1e-4
        rounds.append({"public": theirs.seconds, "own": ours.seconds, "bfloat16": quick and quick.seconds})
        print(f"round {number + 1} of {repeats}: {ratio(rounds[-1], 'own', WALL):.2f} times", flush=True)
    memory = {name: in_child(name) for name in ("public lookup", "own lookup", "public tumor", "own tumor")}
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "bfloat16": has_bfloat16(),
            "threads": THREADS,
            "torch": torch.__version__,
        },
        "rounds": rounds,
        "lookups": lookups(repeats),
        "memory_mb": memory,
        "accuracy": accuracy(model),
    }


def ratio(measured: dict, path: str, kind: int) -> float:
    """Of the sums over all stages."""
    theirs, ours = (sum(seconds[kind] for seconds in measured[name].values()) for name in ("public", path))
    return theirs / ours


def lookups(repeats: int) -> dict:
    """The lookup alone, of 13824 standard normal vectors among 16384 codes: seconds, and codes that differ."""
    rng = np.random.default_rng(2)
    vectors, codes = (torch.from_numpy(rng.standard_normal((n, 8)).astype(np.float32)) for n in (24**3, 16384))
    latent = vectors.view(1, 24, 24, 24, 8).movedim(-1, 1)
    rounds = []
    with torch.inference_mode():
        for _ in range(repeats):
            clock = Clock()
            indices, _ = clock("public", lambda: public_steps.look_up(codes, latent))
            found = clock("own", lambda: vector_quantize(vectors, codes).indices)
            rounds.append(clock.seconds)
    return {"rounds": rounds, "changed": int((indices.flatten() != found).sum())}


def in_child(name: str) -> float:
    """Peak MB of one run in a fresh process, over what the process had after a run on a small patch."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (name,))


def _peak_mb(name: str) -> float:
    torch.set_num_threads(THREADS)
    model = networks()
    sampler, codes = FastSampler(model), model.autoencoder.codebook.embeddings
    run = {
        "public lookup": lambda edge: public_steps.look_up(codes, torch.zeros(1, 8, *[edge // 4] * 3)),
        "own lookup": lambda edge: vector_quantize(torch.zeros((edge // 4) ** 3, 8), codes),
        "public tumor": lambda edge: public(model, edge),
        "own tumor": lambda edge: sampler(*inputs(edge)),
    }[name]
    with torch.inference_mode():
        run(32 if "tumor" in name else 8)
        before = _high_water_mb()
        run(EDGE)
    return _high_water_mb() - before


def _high_water_mb() -> float:
    """Most memory of this process so far; the figure of `getrusage` begins with that of the parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return ((found.double() - exact.double()).norm() / exact.double().norm()).item()


def accuracy(model: LatentDiffusion) -> dict[str, float]:
    """Of every stage on equal input, against float64 by the plain modules."""
    single = stages_against_float64(model, FastSampler(copy.deepcopy(model)), 64)[0]
    # Smaller: without instructions for it, bfloat16 is slow.
    half, differences = stages_against_float64(model, FastSampler(model, bfloat16=True), 32)
    del half["lookup, excess over squared length"]
    return single | {f"{stage}, bfloat16": error for stage, error in half.items()} | differences


def stages_against_float64(model: LatentDiffusion, sampler: FastSampler, edge: int) -> tuple[dict, dict]:
    """Errors of the sampler's stages; and how its whole tumors differ from those in float32."""
    exact = copy.deepcopy(model).double()
    volume, tumor, noises = inputs(edge)
    single = FastSampler(copy.deepcopy(model))
    full, other = own(single, edge)[1], own(sampler, edge)[1]
    steps, condition, codes = torch.tensor([2]), full["condition"], model.autoencoder.codebook.embeddings
    with torch.no_grad():
        latent = exact.autoencoder.encode(volume.double())
        noise = exact.unet(noises[0].double(), steps, condition=condition.double())
        decoded = exact.autoencoder.decode_indices(full["indices"])
    networks = sampler.model
    dtype = networks.unet.conv_first.weight.dtype
    with torch.inference_mode():
        vectors = ((other["latent"] + 1) / 2 * model.code_range + model.code_min).movedim(1, -1).reshape(-1, 8)
        chosen = codes[other["indices"].flatten()]
        best = torch.cat([torch.cdist(part.double(), codes.double()).amin(1).square() for part in vectors.split(512)])
        excess = ((vectors.double() - chosen.double()).square().sum(1) - best) / vectors.double().square().sum(1)
        tables = networks.unet.tables(steps, depth=condition.shape[2])
        predicted = networks.unet(noises[0].to(dtype), steps, condition=condition.to(dtype), tables=tables)
        errors = {
            "encode": relative(networks.autoencoder.encode(volume), latent),
            "U-Net step": relative(predicted, noise),
            "decode": relative(networks.autoencoder.decode_indices(full["indices"]), decoded),
            "lookup, excess over squared length": excess.max().item(),
        }
    error_hu = (other["made"] - full["made"])[tumor].abs().mean().item() * WINDOW_WIDTH_HU
    return errors, {
        "codes that bfloat16 changes": (other["indices"] != full["indices"]).double().mean().item(),
        "mean absolute difference of bfloat16 in the tumor, HU": error_hu,
    }


def checks(result: dict) -> list[tuple[str, str, str, bool | None]]:
    """What, figure, bar, held; None for what was not measured."""
    rounds, lines = result["rounds"], []

    def middle(values: list[float]) -> float:
        return median(values)

    total = middle([sum(seconds[WALL] for seconds in each["public"].values()) for each in rounds])
    for stage, expected in PUBLIC_SHARES.items():
        share = 100 * middle([each["public"][stage][WALL] for each in rounds]) / total
        # A note and no bar: another machine parts the public code's time in another way, and takes no longer itself.
        lines.append((f"baseline, share of {stage}", f"{share:.0f} %", f"public code: {expected} %", None))
    found = middle([each["public"][WALL] / each["own"][WALL] for each in result["lookups"]["rounds"]])
    lines.append(("lookup of 13824 x 16384", f"{found:.1f} times", f"{LOOKUP_BAR}", found >= LOOKUP_BAR))
    changed = result["lookups"]["changed"]
    lines.append(("lookup, other codes than the baseline", str(changed), "0", changed == 0))
    memory = result["memory_mb"]
    bar = f"{LOOKUP_MB_BAR} MB"
    lines.append(("lookup, memory", f"{memory['own lookup']:.0f} MB", bar, memory["own lookup"] < LOOKUP_MB_BAR))
    found = middle([ratio(each, "own", WALL) for each in rounds])
    bar = f"{TUMOR_BAR} (stretch {TUMOR_STRETCH})"
    lines.append(("early tumor, float32", f"{found:.2f} times", bar, found >= TUMOR_BAR))
    if result["machine"]["bfloat16"]:
        found = middle([ratio(each, "bfloat16", WALL) for each in rounds])
        lines.append(("early tumor, bfloat16", f"{found:.2f} times", f"{BFLOAT16_BAR}", found >= BFLOAT16_BAR))
    else:
        lines.append(("early tumor, bfloat16", "this CPU has none, not measured", f"{BFLOAT16_BAR}", None))
    bar = f"{TUMOR_MB_BAR} MB"
    lines.append(("early tumor, memory", f"{memory['own tumor']:.0f} MB", bar, memory["own tumor"] < TUMOR_MB_BAR))
    for name, value in result["accuracy"].items():
        if name.startswith(("codes", "mean")):
            shown = f"{100 * value:.1f} %" if name.startswith("codes") else f"{value:.1f}"
            lines.append((name, shown, "none", None))
            continue
        bar = EXACT_BAR
        if "excess" in name:
            bar = QUANTIZATION_BAR
        elif "bfloat16" in name:
            bar = BFLOAT16_ERROR_BAR
        lines.append((f"error of {name}", f"{value:.1e}", f"{bar:.0e}", value <= bar))
    return lines


def tables(result: dict) -> str:
    """Both tables of docs/performance.md."""
    rounds = result["rounds"]
    lines = ["| stage | public steps, s | ours, s | ratio | ratio of CPU seconds |", "|---|---|---|---|---|"]
    for stage in (*STAGES, "blend"):
        theirs, ours = ([each[path][stage] for each in rounds] for path in ("public", "own"))
        cpu, wall = ([a[kind] / b[kind] for a, b in zip(theirs, ours, strict=True)] for kind in (CPU, WALL))
        seconds = [median(each[WALL] for each in path) for path in (theirs, ours)]
        lines.append(
            f"| {stage} | {seconds[0]:.2f} | {seconds[1]:.2f} | {median(wall):.1f} | {median(cpu):.1f} |",
        )
    totals = [median(sum(s[WALL] for s in each[path].values()) for each in rounds) for path in ("public", "own")]
    cpu, wall = (median(ratio(each, "own", kind) for each in rounds) for kind in (CPU, WALL))
    lines.append(f"| early tumor | {totals[0]:.2f} | {totals[1]:.2f} | {wall:.2f} | {cpu:.2f} |")
    memory = result["memory_mb"]
    lines += ["", "| peak memory over base | public steps | ours |", "|---|---|---|"]
    for what in ("lookup", "tumor"):
        lines.append(f"| {what} | {memory[f'public {what}']:.0f} MB | {memory[f'own {what}']:.0f} MB |")
    lines += ["", "| what | measured | bar | held |", "|---|---|---|---|"]
    held = {True: "yes", False: "**no**", None: ""}
    lines += [f"| {what} | {figure} | {bar} | {held[passed]} |" for what, figure, bar, passed in checks(result)]
    return "\n".join(lines)


def main(repeats: int, *, out: Path | None = None, stored: Path | None = None) -> int:
    """Prints what is measured, or the result of a file; 1 when a bar is missed.

    Args:
        repeats: rounds.
        out: JSON file that gets what was measured.
        stored: JSON file of an earlier result; nothing is measured.
    """
    # What was measured, as JSON has it: with lists.
    result = json.loads(stored.read_text() if stored is not None else json.dumps(measure(repeats)))
    if out is not None:
        write_json(out, result)
    print(tables(result))
    missed = [what for what, _, _, passed in checks(result) if passed is False]
    print(f"MISSED: {', '.join(missed)}" if missed else "all bars held")
    return int(bool(missed))
