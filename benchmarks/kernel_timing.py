"""How the kernel benchmarks check, time and write down: one row per operation, shape, direction and variant."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from kernel_cases import Case
from kernel_checks import LIMITS, products_in, relative

from nnunet_difftumor.kernels.implementation import implementation

OURS, PLAIN, COMPILED = "ours", "plain PyTorch", "torch.compile"


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches in long runs: bytes/s copied, FLOP/s of half-precision products, seconds of a launch."""

    bytes_per_second: float
    flops_per_second: float
    launch_seconds: float

    def floor_seconds(self, *, moved: float, flops: float) -> float:
        return max(moved / self.bytes_per_second, flops / self.flops_per_second, self.launch_seconds)

    def __str__(self) -> str:
        return (
            f"{self.bytes_per_second / 1e12:.3g} TB/s, {self.flops_per_second / 1e12:.3g} TFLOP/s, "
            f"{self.launch_seconds * 1e6:.2g} us a launch"
        )


@dataclass(frozen=True)
class Row:
    """One timing. Times in microseconds; `of_floor` is the median over the floor; None where there is nothing."""

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
    """By copies, by products of square matrices, and by adding to one number.

    Args:
        device: cuda: 512 MiB and 8192 x 8192 bfloat16; cpu: 64 MiB and 1024 x 1024 float32.
    """
    on_cpu = device == "cpu"
    edge, dtype = (1024, torch.float32) if on_cpu else (8192, torch.bfloat16)
    large = torch.zeros(2**26 if on_cpu else 2**29, dtype=torch.int8, device=device)
    copied, one = torch.zeros_like(large), torch.zeros(1, device=device)
    square = torch.ones(edge, edge, dtype=dtype, device=device)
    copy, product = (
        statistics.median(seconds(run, device=device, flush=False))
        for run in (lambda: copied.copy_(large), lambda: square @ square)
    )
    launch = statistics.median(seconds(lambda: one.add_(1), device=device, flush=False, in_graph=True))
    return Ceilings(2 * large.nbytes / copy, 2 * edge**3 / product, launch)


def seconds(
    run: Callable[[], object],
    *,
    device: str,
    flush: bool = True,
    in_graph: bool = False,
    least: int = 5,
    budget_s: float = 0.1,
) -> list[float]:
    """Durations of single runs, for about `budget_s`, after one that does not count (unless one is all that is wanted).

    Args:
        run: what is timed.
        device: cuda or cpu.
        flush: on CUDA, whether 256 MB are written before each run, so that the second-level cache is cold.
        in_graph: on CUDA, time a replayed graph of ten runs, without what the CPU takes to launch.
        least: number of runs, also where they take longer.
        budget_s: in seconds.
    """
    if device != "cpu" or least > 1:
        run()
    found: list[float] = []
    started = time.perf_counter()

    def wanted() -> bool:
        return len(found) < least or (time.perf_counter() - started < budget_s and len(found) < 200)

    if device == "cpu":
        while wanted():
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return found
    torch.cuda.synchronize()
    repeats = 10 if in_graph else 1
    if in_graph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeats):
                run()
        run = graph.replay
        run()
    cache = torch.empty(2**28, dtype=torch.int8, device=device) if flush else None
    while wanted():
        if cache is not None:
            cache.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000 / repeats)
    return found


def check(case: Case, *, dtype: str, choice: str = "auto") -> float:
    """Largest relative L2 distance of output and gradients to the reference in float64; of quantization the excess of
    the squared distance over |z|^2.
    """
    with implementation(choice):
        seen = _results(case, case.ours, torch.Tensor.clone)
    wanted = _results(case, case.reference, torch.Tensor.double)
    if case.operation == "vector_quantize":
        # Of near ties either code is right: distances are compared, not indices.
        vectors = case.inputs[0].double()
        own, best = ((vectors - found[0].double()).square().sum(1) for found in (seen, wanted))
        return ((own - best) / vectors.square().sum(1)).max().item()
    errors = [relative(*pair) for pair in zip(seen, wanted, strict=True)]
    return float("nan") if any(error != error for error in errors) else max(errors)


def _results(case: Case, call: Callable, cast: Callable) -> list[torch.Tensor]:
    inputs = [cast(tensor.detach()) for tensor in case.inputs]
    for tensor in inputs[: case.trained]:
        tensor.requires_grad_()
    out = call(*inputs)
    if not case.trained:
        return [out]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(case.inputs[0].dtype).to(out)
    return [out.detach(), *torch.autograd.grad(out, inputs[: case.trained], weights)]


def time_case(
    case: Case,
    *,
    batch: int,
    dtype: str,
    device: str,
    ceilings: Ceilings,
    choice: str = "auto",
    with_compile: bool = True,
    least: int = 5,
) -> Iterator[Row]:
    """Rows of all variants in both directions; where the check fails, without any time.

    Args:
        case: what is timed.
        batch, dtype: for the rows.
        device: cuda or cpu.
        ceilings: of the device.
        choice: which implementation `ours` is, as `kernels.implementation` takes it.
        with_compile: also time torch.compile, which takes seconds for each shape and direction.
        least: timed runs.
    """
    with products_in(dtype):
        error, limit = check(case, dtype=dtype, choice=choice), limit_of(case, dtype)
        variants = {OURS: case.ours, PLAIN: case.plain, **case.good}
        if with_compile and case.fusable:
            torch._dynamo.reset()  # it gives up on a function that it has compiled for eight shapes
            variants[COMPILED] = torch.compile(case.reference, dynamic=False)
        for direction in ("forward", "backward") if case.backward_bytes else ("forward",):
            forward = direction == "forward"
            moved, flops = (case.bytes, case.flops) if forward else (case.backward_bytes, case.backward_flops)
            floor = ceilings.floor_seconds(moved=moved, flops=flops)
            for name, call in variants.items():
                row = Row(
                    *(case.operation, case.shape, batch, dtype, direction, name, None, None, None, None),
                    *(floor * 1e6, None, error if name == OURS else None, ""),
                )
                # Without a right result no variant is timed: there is nothing that it could be faster than.
                if not error <= limit:
                    yield replace(row, remark=f"REFUSED: error {error:.1e}, allowed {limit:.0e}")
                    continue
                with implementation(choice) if name == OURS else nullcontext():
                    yield _timed_row(row, case, call, device=device, least=least)


def limit_of(case: Case, dtype: str) -> float:
    return LIMITS["distance" if case.operation == "vector_quantize" else dtype]


def _timed_row(row: Row, case: Case, call: Callable, *, device: str, least: int) -> Row:
    forward = row.direction == "forward"
    try:
        with torch.no_grad() if forward else torch.enable_grad():
            run = _runner(case, call, forward=forward)
            peak = peak_mb(run) if device == "cuda" else None
            # A graph leaves out what the CPU takes for launching, as in the fast path.
            try:
                times = seconds(run, device=device, in_graph=forward, flush=False, least=least)
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or not forward:
                    raise
                row = replace(row, remark="cannot be captured as a graph: with launches from Python")
                times = seconds(run, device=device, flush=False, least=least)
    except torch.OutOfMemoryError:
        return replace(row, remark="out of memory")
    low, median, high = quantiles(times, unit_s=1e-6)
    return replace(row, median_us=median, p20_us=low, p80_us=high, peak_mb=peak, of_floor=median / row.floor_us)


def _runner(case: Case, call: Callable, *, forward: bool) -> Callable[[], object]:
    inputs = [tensor.detach().clone() for tensor in case.inputs]
    if forward:
        return lambda: call(*inputs)
    for tensor in inputs[: case.trained]:
        tensor.requires_grad_()
    out = call(*inputs)
    weights = torch.ones_like(out)
    return lambda: torch.autograd.grad(out, inputs[: case.trained], weights, retain_graph=True)


def peak_mb(run: Callable[[], object], *, warm: bool = True) -> float:
    """What a run needs on the GPU besides what is there already; if `warm`, after one that does not count."""
    if warm:
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def quantiles(times: list[float], *, unit_s: float) -> tuple[float, float, float]:
    """20 %, median, 80 %."""
    ordered = sorted(times)
    return tuple(ordered[round(share * (len(ordered) - 1))] / unit_s for share in (0.2, 0.5, 0.8))


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
        remark = f"  {row.remark}" if row.remark else ""
        lines.append(f"  {row.variant:<26}{row.median_us:10.1f} us {row.of_floor:7.1f} x floor{memory}{error}{remark}")
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """For people: per operation, dtype, batch and direction, over all shapes, ours against plain and best PyTorch."""
    lines = [f"{'':<64}{'ours us':>9}{'/ floor':>9}{'plain / ours':>14}{'best / ours':>13}"]
    groups: dict[tuple, dict[str, dict[str, Row]]] = {}
    for row in rows:
        key = (row.operation, row.dtype, row.batch, row.direction)
        groups.setdefault(key, {}).setdefault(row.shape, {})[row.variant] = row
    for (operation, dtype, batch, direction), shapes in groups.items():
        name = f"{operation}, {dtype}, batch {batch}, {direction}"
        if any(found[OURS].median_us is None for found in shapes.values()):
            lines.append(f"{name:<64}{'REFUSED' if _refused(shapes) else 'not timed':>9}")
            continue
        ours, floor, plain, best = (
            sum(pick(found) for found in shapes.values())
            for pick in (_ours, _floor, lambda found: _fastest(found, {PLAIN}), lambda found: _fastest(found, None))
        )
        lines.append(f"{name:<64}{ours:9.1f}{ours / floor:9.1f}{plain / ours:14.2f}{best / ours:13.2f}")
    return "\n".join(lines)


def _refused(shapes: dict[str, dict[str, Row]]) -> bool:
    return any(found[OURS].remark.startswith("REFUSED") for found in shapes.values())


def _ours(found: dict[str, Row]) -> float:
    return found[OURS].median_us


def _floor(found: dict[str, Row]) -> float:
    return found[OURS].floor_us


def _fastest(found: dict[str, Row], names: set[str] | None) -> float:
    """Of these variants, or all but ours; NaN where none was timed."""
    times = [row.median_us for name, row in found.items() if name != OURS and (names is None or name in names)]
    return min((time for time in times if time is not None), default=float("nan"))
