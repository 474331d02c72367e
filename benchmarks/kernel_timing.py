"""How the kernel benchmarks check, time and write down: one row per operation, shape, direction and variant."""

import csv
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from kernel_cases import Case

from nnunet_difftumor.kernels.implementation import implementation

# Relative L2 distance to float64, forward and gradients.
TOLERANCES = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-2, "float16": 2e-3}


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches in long runs: bytes/s copied, FLOP/s of half-precision products, seconds of a launch."""

    bytes_per_second: float
    flops_per_second: float
    launch_seconds: float

    def floor_seconds(self, *, moved: float, flops: float) -> float:
        return max(moved / self.bytes_per_second, flops / self.flops_per_second, self.launch_seconds)


@dataclass(frozen=True)
class Row:
    """One timing. Times in microseconds; `of_floor` is the median over the floor; empty where there is nothing."""

    operation: str
    shape: str
    batch: int
    dtype: str
    direction: str
    variant: str
    median_us: float | None
    p20_us: float | None
    p80_us: float | None
    peak_mb: float | None
    floor_us: float
    of_floor: float | None
    error: float | None
    remark: str


def measure_ceilings(device: str) -> Ceilings:
    """By copying 1 GiB, by products of 8192 x 8192 matrices, and by copying one number."""
    if device == "cpu":
        # Nothing that is timed here means anything for a GPU; the suite only runs to its end.
        return Ceilings(1e10, 1e11, 1e-6)
    large = torch.empty(2**29, dtype=torch.int8, device=device)
    copied = torch.empty_like(large)
    square = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)
    one = torch.zeros(1, device=device)
    copy = statistics.median(seconds(lambda: copied.copy_(large), device=device, flush=False))
    product = statistics.median(seconds(lambda: square @ square, device=device, flush=False))
    launch = statistics.median(seconds(lambda: one.add_(1), device=device, flush=False, in_graph=True))
    return Ceilings(2 * large.nbytes / copy, 2 * 8192**3 / product, launch)


def seconds(
    run: Callable[[], object], *, device: str, flush: bool = True, in_graph: bool = False, budget_s: float = 0.2
) -> list[float]:
    """Durations of single runs, for about `budget_s`; with `flush` the second-level cache is cold.

    Args:
        run: what is timed.
        device: cuda or cpu.
        flush: whether 256 MB are written before each run.
        in_graph: time a replayed CUDA graph of ten runs, without what the CPU takes to launch.
    """
    if device == "cpu":
        start = time.perf_counter()
        run()
        return [time.perf_counter() - start]
    repeats = 1
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    if in_graph:
        repeats, graph = 10, torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeats):
                run()
        run = graph.replay
        run()
    cache = torch.empty(2**28, dtype=torch.int8, device=device) if flush else None
    found, started = [], time.perf_counter()
    while len(found) < 5 or (time.perf_counter() - started < budget_s and len(found) < 200):
        if cache is not None:
            cache.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000 / repeats)
    return found


def check(case: Case, *, dtype: str) -> float:
    """Largest relative L2 distance of output and gradients to the reference in float64."""
    seen = _run(case, case.ours, torch.Tensor.clone)
    with implementation("reference"):
        expected = _run(case, case.ours, torch.Tensor.double)
    if case.operation == "vector_quantize":
        # Of near ties either code is right: distances are compared, not indices.
        vectors = case.inputs[0].double()
        distances = [(vectors - found[0].double()).square().sum(1) for found in (seen, expected)]
        return ((distances[0] - distances[1]) / vectors.square().sum(1)).max().item()
    errors = []
    for found, wanted in zip(seen, expected, strict=True):
        scale = wanted.double().norm()
        errors.append(((found.double() - wanted).norm() / scale).item() if scale > 0 else found.norm().item())
    return float("nan") if any(error != error for error in errors) else max(errors)


def _run(case: Case, call: Callable, cast: Callable) -> list[torch.Tensor]:
    inputs = [cast(tensor.detach()) for tensor in case.inputs]
    for tensor in inputs[: case.trained]:
        tensor.requires_grad_()
    out = call(*inputs)
    if not case.trained:
        return [out]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, inputs[: case.trained], weights)]


def variants(case: Case) -> dict[str, Callable]:
    return {"ours": case.ours, "plain PyTorch": case.plain, **case.good}


def time_case(
    case: Case, *, batch: int, dtype: str, device: str, ceilings: Ceilings, backward: bool, choice: str = "triton"
) -> list[Row]:
    """Rows of all variants, in both directions; where the check fails, without any time."""
    error = check(case, dtype=dtype)
    limit = 1e-6 if case.operation == "vector_quantize" else TOLERANCES[dtype]
    good = error <= limit
    rows = []
    for direction in ("forward", "backward") if backward and case.backward_bytes else ("forward",):
        moved, flops = (
            (case.bytes, case.flops) if direction == "forward" else (case.backward_bytes, case.backward_flops)
        )
        floor = ceilings.floor_seconds(moved=moved, flops=flops)
        for name, call in variants(case).items():
            remark, times, peak = "", None, None
            if not good:
                remark = f"REFUSED: relative error {error:.1e}, allowed {limit:.0e}"
            else:
                try:
                    with torch.enable_grad() if direction == "backward" else torch.no_grad():
                        times, peak = _timed(case, call, direction=direction, device=device)
                except torch.OutOfMemoryError:
                    remark = "out of memory"
            low, median, high = _quantiles(times)
            rows.append(
                Row(
                    *(case.operation, case.shape, batch, dtype, direction, name, median, low, high, peak),
                    *(floor * 1e6, None if median is None else median / (floor * 1e6)),
                    *(error if name == "ours" else None, remark),
                )
            )
    return rows


def _timed(case: Case, call: Callable, *, direction: str, device: str) -> tuple[list[float], float | None]:
    inputs = [tensor.detach().clone() for tensor in case.inputs]
    if direction == "forward":

        def run() -> object:
            return call(*inputs)

    else:
        for tensor in inputs[: case.trained]:
            tensor.requires_grad_()
        out = call(*inputs)
        weights = torch.ones_like(out)

        def run() -> object:
            return torch.autograd.grad(out, inputs[: case.trained], weights, retain_graph=True)

    if device == "cpu":
        return seconds(run, device=device), None
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / 1e6
    # A graph leaves out what the CPU takes for launching, as in the fast path; backward passes are not captured.
    return seconds(run, device=device, in_graph=direction == "forward", flush=False), peak


def _quantiles(times: list[float] | None) -> tuple[float | None, float | None, float | None]:
    if not times:
        return None, None, None
    ordered = sorted(times)
    return tuple(ordered[round(share * (len(ordered) - 1))] * 1e6 for share in (0.2, 0.5, 0.8))


def provenance(device: str) -> dict[str, str]:
    """Where and with what rows were made."""
    import triton

    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit,
    }


def append_rows(path: Path, rows: list, made: dict[str, str]) -> None:
    """Adds rows to a CSV file, with where they come from; a new file gets a head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*made, *asdict(rows[0])])
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({**made, **{key: _short(value) for key, value in asdict(row).items()}})


def _short(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value


def table(rows: list[Row]) -> str:
    """For people: a block per shape and direction."""
    lines, last = [], None
    for row in rows:
        key = (row.operation, row.shape, row.dtype, row.direction)
        if key != last:
            lines.append(f"\n{row.operation}, {row.shape}, {row.dtype}, {row.direction}; floor {row.floor_us:.1f} us")
            last = key
        if row.median_us is None:
            lines.append(f"  {row.variant:<26}{row.remark}")
            continue
        memory = "" if row.peak_mb is None else f"{row.peak_mb:9.1f} MB"
        error = "" if row.error is None else f"  error {row.error:.1e}"
        lines.append(f"  {row.variant:<26}{row.median_us:10.1f} us {row.of_floor:7.1f} x floor{memory}{error}")
    return "\n".join(lines)
