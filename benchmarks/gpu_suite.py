"""The kernels on this GPU: are they right, how fast are they, and what does a tumor take from end to end?

What matters most comes first, and --minutes bounds all of it, compilation included:

1. An odd and a real shape of every operation against float64, output and gradients, in processes on all cores, which
   also compile what a tumor needs (kernel_checks.py).
2. `DiffusionRenderer.render` for every size, batch 1 and 8, and its parts (render_times.py).
3. With --live FOLDER an epoch of training with live tumors against nnU-Net's own (live_epoch.py).
4. All other shapes, precisions and layouts against float64.
5. A tumor at 96^3 by every path, early (4 steps) and late (50), batch 1, 2, 4 and 8, with its stages (tumor_paths.py).
6. Every operation over the networks' shapes, against plain PyTorch, the best of PyTorch, and the roofline of ceilings
   that are measured first (kernel_cases.py, kernel_timing.py).

Nothing is timed whose check failed; then the suite exits 1. Rows with device, versions and commit are added to CSV
files as they are made, those of --store to benchmarks/results. Needs a clone, torch, triton, numpy and einops; the
second part also what the package needs for synthesis, the third nnU-Net. What is not done after --minutes is left out,
and said.

Without a GPU, `--small` runs the kernels' parts to the end through Triton's interpreter, at shapes where times mean
nothing.
"""

import argparse
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from kernel_cases import OPERATIONS, SINGLE, cases
from kernel_checks import Check, Finding, checks
from kernel_timing import Ceilings, Row, measure_ceilings, peak_mb, quantiles, seconds, summary, table, time_case
from result_rows import FOLDER, UNTRACKED, append_rows, provenance
from tumor_paths import (
    PATH_LIMITS,
    PATHS,
    SAMPLERS,
    SMALL_SAMPLERS,
    STAGE_LIMITS,
    STAGES,
    Patches,
    errors,
    exact_stages,
    launched,
    random_model,
)
from tumor_paths import Path as TumorPath

BATCHES = (1, 2, 4, 8)
# Of a tumor with the kernels, at the batches of render_times.py: what is compiled in processes beforehand.
COMPILED_PATHS = ("kernels", "graph, bfloat16")
# torch.compile takes seconds for each shape and direction: at the first shape of each operation, for these batches.
COMPILED_BATCHES = (1, 4)


@dataclass(frozen=True)
class TumorRow:
    """Time of a stage, or of all ("draw"), in milliseconds for the whole batch; None where there is nothing."""

    tumor: str
    size: int
    batch: int
    path: str
    stage: str
    median_ms: float | None
    p20_ms: float | None
    p80_ms: float | None
    peak_mb: float | None
    error: float | None
    remark: str


@dataclass(frozen=True)
class Store:
    """Where rows go as soon as they are there, and where they come from."""

    folder: Path
    made: dict[str, str]

    def add(self, file: str, rows: Sequence) -> None:
        append_rows(self.folder / file, list(rows), self.made)


def compile_tumor(path: str, batch: int) -> list[Finding]:
    """Draws an early tumor: its kernels are then in Triton's cache, for other processes too."""
    sampler = SAMPLERS["early"]
    try:
        model = random_model(sampler, device="cuda", small=False)
        tumor_path, patches = PATHS[path](model, sampler), Patches.drawn(batch, 96, sampler=sampler, device="cuda")
        with tumor_path.running():
            list(tumor_path.stages(patches, launched))
    except Exception as error:  # what fails here fails again where it is checked
        print(f"  not compiled beforehand: {path}, batch {batch}: {type(error).__name__}: {error}", flush=True)
    return []


def check_operations(
    chosen: Sequence[Check],
    *,
    device: str,
    left_s: Callable[[], float],
    store: Store,
    more: Sequence[Callable[[], list[Finding]]] = (),
) -> list[Finding]:
    """What the checks find; prints the worst of each operation and precision, and every one that is too far off.

    Args:
        chosen: the checks; on CUDA in processes on all cores.
        device: cuda or cpu.
        left_s: seconds until no more results are awaited.
        store: gets a row for each finding.
        more: other work for the processes on CUDA.
    """
    found: list[Finding] = []
    tasks = [check.findings for check in chosen] + (list(more) if device == "cuda" else [])
    done = 0
    for findings in _results(tasks, device=device, left_s=left_s):
        done += 1
        store.add("kernel_checks.csv", findings)
        found += findings
        for finding in findings:
            if not finding.good:
                print(f"  WRONG {finding}", flush=True)
    if done < len(tasks):
        print(f"  left out, no time left: {len(tasks) - done} of {len(tasks)} calls", flush=True)
    worst: dict[tuple[str, str], Finding] = {}
    for finding in found:
        key = (finding.operation, finding.precision if finding.limit else "exact")
        if key not in worst or not finding.error <= worst[key].error:
            worst[key] = finding
    for (operation, precision), finding in worst.items():
        print(f"  {operation:<28}{precision:<10} worst {finding.error:8.1e} of {finding.limit:.0e}: {finding.quantity}")
    return found


def _results(
    tasks: Sequence[Callable[[], list[Finding]]], *, device: str, left_s: Callable[[], float]
) -> Iterator[list[Finding]]:
    """Of each task, as it is done: on CUDA in processes on all cores, otherwise here, one after the other."""
    if device != "cuda":
        yield from (task() for task in tasks)
        return
    with multiprocessing.get_context("spawn").Pool(min(len(tasks), os.cpu_count() or 1)) as pool:
        waiting = pool.imap_unordered(_call, tasks)
        try:
            for _ in tasks:
                yield waiting.next(timeout=max(left_s(), 0))
        except multiprocessing.TimeoutError:
            return


def _call(task: Callable[[], list[Finding]]) -> list[Finding]:
    return task()


def time_renderer(*, left_s: Callable[[], float], store: Store) -> None:
    """Prints and stores what `DiffusionRenderer.render` takes."""
    try:
        import render_times

        with tempfile.TemporaryDirectory() as folder:
            for row in render_times.rows("cuda", weights=Path(folder), left_s=left_s):
                store.add("render_times.csv", [row])
                print(render_times.table([row]), flush=True)
    except ImportError as error:
        print(f"  left out: {error}", flush=True)


def time_live_epoch(folder: Path, *, left_s: Callable[[], float], results: Path) -> None:
    """Runs live_epoch.py for at most the time that is left; its lines are shown as they come."""
    command = [sys.executable, Path(__file__).with_name("live_epoch.py"), "--device", "cuda", "--runs", "1"]
    command += ["--iterations", "40", "--workers", str(max(1, (os.cpu_count() or 1) - 4))]
    try:
        subprocess.run(
            [*command, "--folder", folder, "--results", results], timeout=max(left_s(), 0), env=os.environ, check=False
        )
    except subprocess.TimeoutExpired:
        print("  no time left: the live epoch was stopped", flush=True)


def time_tumors(*, device: str, small: bool, left_s: Callable[[], float]) -> Iterator[TumorRow]:
    """Rows of every path, kind of tumor and batch."""
    size, batches = (8, (1,)) if small else (96, BATCHES)
    for tumor, sampler in (SMALL_SAMPLERS if small else SAMPLERS).items():
        model = random_model(sampler, device=device, small=small)
        checked = Patches.drawn(1, size, sampler=sampler, device=device)
        exact = exact_stages(model, sampler, checked)
        for name, make in PATHS.items():
            path = make(model, sampler)
            error = errors(path, checked, exact=exact)
            for batch in batches:
                rows = [
                    TumorRow(tumor, size, batch, name, stage, None, None, None, None, error.get(stage), "")
                    for stage in (*STAGES, "draw")
                ]
                wrong = [f"{stage} {value:.1e}" for stage, value in error.items() if not value <= limit(name, stage)]
                if wrong:
                    yield from (with_remark(row, f"REFUSED: error of {', '.join(wrong)}") for row in rows)
                elif left_s() < 0:
                    yield from (with_remark(row, "left out: no time left") for row in rows)
                else:
                    patches = Patches.drawn(batch, size, sampler=sampler, device=device)
                    yield from timed_rows(rows, path, patches, device=device, repeats=1 if small else 3)


def limit(path: str, stage: str) -> float:
    return STAGE_LIMITS.get(stage, PATH_LIMITS[path])


def with_remark(row: TumorRow, remark: str) -> TumorRow:
    return TumorRow(**(vars(row) | {"remark": remark}))


def timed_rows(rows: list[TumorRow], path: TumorPath, patches: Patches, *, device: str, repeats: int) -> list[TumorRow]:
    """The same rows with times: of the stages one by one, and of all at once."""
    times: dict[str, list[float]] = {row.stage: [] for row in rows}
    try:
        with path.running():
            # Of the first draw: what a graph needs is in use while it is captured, and set aside from then on.
            peak = peak_mb(lambda: path.draw(patches), warm=False) if device == "cuda" else None
            times["draw"] = seconds(
                lambda: path.draw(patches),
                device=device,
                flush=False,
                least=repeats,
                budget_s=0.0 if device == "cpu" else 0.5,
            )
            if device == "cuda":
                stage_seconds(path, patches, device=device)  # makes their graphs
            for _ in range(repeats):
                for stage, duration in stage_seconds(path, patches, device=device):
                    times[stage].append(duration)
    except torch.OutOfMemoryError:
        return [with_remark(row, "out of memory") for row in rows]
    timed = []
    for row in rows:
        low, median, high = quantiles(times[row.stage], unit_s=1e-3)
        found = {"median_ms": median, "p20_ms": low, "p80_ms": high}
        timed.append(TumorRow(**(vars(row) | found | {"peak_mb": peak if row.stage == "draw" else None})))
    return timed


def stage_seconds(path: TumorPath, patches: Patches, *, device: str) -> list[tuple[str, float]]:
    def wait() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    found, before = [], wait()
    for stage, _ in path.stages(patches):
        now = wait()
        found.append((stage, now - before))
        before = now
    return found


def tumor_table(rows: list[TumorRow]) -> str:
    """For people: a line per path and batch, stages side by side."""
    lines = [f"{'ms for the batch':<38}" + "".join(f"{stage:>10}" for stage in (*STAGES, "draw", "each"))]
    groups: dict[tuple, dict[str, TumorRow]] = {}
    for row in rows:
        groups.setdefault((row.tumor, row.size, row.batch, row.path), {})[row.stage] = row
    for (tumor, size, batch, path), stages in groups.items():
        name = f"{tumor} {size}^3, batch {batch}, {path}"
        total = stages["draw"]
        if total.median_ms is None:
            lines.append(f"{name:<38}  {total.remark}")
            continue
        cells = "".join(f"{stages[stage].median_ms:10.2f}" for stage in (*STAGES, "draw"))
        lines.append(f"{name:<38}{cells}{total.median_ms / batch:10.2f}")
    return "\n".join(lines)


def time_operations(
    *, device: str, small: bool, ceilings: Ceilings, wrong: set[str], left_s: Callable[[], float]
) -> Iterator[Row]:
    """Rows of every operation whose checks hold, while there is time."""
    half = "bfloat16" if device == "cuda" else "float32"
    for batch in (2,) if small else BATCHES:
        for operation in OPERATIONS:
            if operation in wrong:
                continue
            # Exact float32 of those that take half precision at one batch.
            dtypes = {"float32"} if operation in SINGLE else {half} | ({"float32"} if batch == 1 else set())
            for dtype in sorted(dtypes):
                found = cases(operation, batch=batch, dtype=getattr(torch, dtype), device=device, small=small)
                for number, case in enumerate(found):
                    if left_s() < 0:
                        print(f"  left out, no time left: {operation}, {case.shape}, {dtype}", flush=True)
                        continue
                    compiled = not small and number == 0 and batch in COMPILED_BATCHES and dtype == half
                    yield from time_case(
                        case,
                        batch=batch,
                        dtype=dtype,
                        device=device,
                        ceilings=ceilings,
                        choice="triton",
                        with_compile=compiled,
                        least=1 if small else 5,
                    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="reduced shapes, and without a GPU the interpreter")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which nothing more is begun, on a GPU")
    parser.add_argument("--live", type=Path, metavar="FOLDER", help="with the phantoms of live_epoch.py")
    parser.add_argument("--results", type=Path, default=UNTRACKED, help="folder of the CSV files (%(default)s)")
    parser.add_argument("--store", action="store_true", help="add the rows to benchmarks/results")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        if not args.small or os.environ.get("TRITON_INTERPRET") != "1":
            parser.error(
                "there is no CUDA device; TRITON_INTERPRET=1 python benchmarks/gpu_suite.py --small runs it all"
            )
        sys.path.insert(0, str(FOLDER.parents[1] / "tests" / "kernels" / "interpreted"))
        import strict_interpreter

        strict_interpreter.install()
    started = time.monotonic()

    def left_s() -> float:
        return 60 * args.minutes - (time.monotonic() - started) if device == "cuda" else math.inf

    torch.backends.cudnn.allow_tf32 = False
    store = Store(FOLDER if args.store else args.results, provenance(device))
    print(", ".join(f"{name} {value}" for name, value in store.made.items()))
    refused = run(device, store, small=args.small, live=args.live, left_s=left_s)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes; rows are in {store.folder}")
    return int(refused)


def run(device: str, store: Store, *, small: bool, live: Path | None, left_s: Callable[[], float]) -> bool:
    """All parts, while there is time; returns whether anything was wrong."""
    on_gpu, every = device == "cuda", checks(device=device, small=small)
    first, others = ([check for check in every if check.first is wanted] for wanted in (True, False))
    checked: list[Finding] = []
    if first:
        print("\nAn odd and a real shape of every operation against float64", flush=True)
        more = [partial(compile_tumor, path, batch) for path in COMPILED_PATHS for batch in (1, 8)]
        checked += check_operations(first, device=device, left_s=left_s, store=store, more=more)
    if on_gpu and all(finding.good for finding in checked):
        print("\nDiffusionRenderer.render", flush=True)
        time_renderer(left_s=left_s, store=store)
        if live is not None:
            print("\nAn epoch with live tumors", flush=True)
            time_live_epoch(live, left_s=left_s, results=store.folder)
    elif on_gpu:
        print("REFUSED: render() and the live epoch were not timed, since operations are wrong", flush=True)

    print("\nOperations against float64")
    checked += check_operations(others, device=device, left_s=left_s, store=store)
    wrong = {finding.operation for finding in checked if not finding.good}
    print(f"  {len(checked)} numbers, {sum(not finding.good for finding in checked)} of them wrong", flush=True)

    print("\nTumors from end to end")
    tumors = []
    for row in time_tumors(device=device, small=small, left_s=left_s):
        store.add("tumor_times.csv", [row])
        tumors.append(row)
    print(tumor_table(tumors), flush=True)

    ceilings = measure_ceilings(device)
    print(f"\nOperations; ceilings of this device: {ceilings}")
    rows = []
    for row in time_operations(device=device, small=small, ceilings=ceilings, wrong=wrong, left_s=left_s):
        store.add("kernel_times.csv", [row])
        rows.append(row)
    print(table(rows))
    print(f"\n{summary(rows)}")
    for operation in sorted(wrong):
        print(f"REFUSED: {operation} is wrong, and was not timed")
    return bool(wrong or any(row.remark.startswith("REFUSED") for row in (*rows, *tumors)))


if __name__ == "__main__":
    sys.exit(main())
