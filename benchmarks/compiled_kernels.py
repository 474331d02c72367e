"""Every kernel compiled for NVIDIA GPUs by its real launcher, on a machine without one: registers, spills,
instructions.

Calls the public operations, forward and backward, on CPU tensors of the networks' shapes, with a driver in Triton's
place that compiles what would run and runs nothing. Each kernel then must have no spills, no local memory, and the
instructions that it was written for. Exits 1 otherwise. Zero spills is necessary for a fast kernel, not sufficient.

The tests take one precision per operation (--quick). --json keeps what was found, and --table prints the table of
docs/kernels.md from it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    sys.exit("unset TRITON_INTERPRET: the interpreter compiles nothing")

import torch
import triton
from kernel_cases import LEVELS, attention_block
from kernel_checks import products_in
from result_rows import FOLDER, commit
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from nnunet_difftumor.files import write_json
from nnunet_difftumor.kernels import (
    Affine,
    PartialMoments,
    convolve,
    denoise_step,
    depth_attention,
    group_norm_modulate_silu,
    latent_condition,
    norm_of_moments,
    norm_silu,
    pack_convolution,
    spatial_linear_attention,
    standard_normal,
)
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import vector_quantize as launchers

ARCHITECTURES = (80, 90)
RESULTS = FOLDER / "compiled_kernels.json"
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Classes of instructions, the first that matches.
CLASSES = (
    ("wgmma", r"HGMMA|QGMMA|IGMMA"),
    ("mma", r"HMMA|IMMA|DMMA"),
    ("local", r"STL|LDL"),
    ("async128", r"LDGSTS\S*\.128"),
    ("load128", r"LDG\S*\.128"),
    ("store128", r"STG\S*\.128"),
    ("atomic", r"RED(?!UX)|ATOM"),
    ("tanh", r"MUFU\.TANH"),
)
MATRIX, WIDE_READ, WIDE_WRITE = ("wgmma", "mma"), ("async128", "load128"), ("store128",)


@dataclass(frozen=True)
class Case:
    """A call of a public operation, and what each kernel that it launches must contain: one of each set of classes.

    `quick` ones are enough for a test: every kernel once.
    """

    name: str
    call: Callable[[], None]
    needs: dict[str, tuple[tuple[str, ...], ...]]
    quick: bool = False


@dataclass
class Compiled:
    """One kernel as it would run."""

    case: str
    kernel: str
    architecture: int
    warps: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: Counter
    missed: list[str]

    def line(self) -> str:
        found = " ".join(f"{name}:{self.instructions[name]}" for name, _ in CLASSES if self.instructions[name])
        verdict = "MISSED " + "; ".join(self.missed) if self.missed else "ok"
        return (
            f"{self.case:<42}{self.kernel.strip('_'):<22}sm_{self.architecture}{self.warps:6}{self.registers:6}"
            f"{self.spilled_bytes:7}{self.shared_bytes:8}  {found:<44}{verdict}"
        )


class FakeDriver:
    """As much of a driver as Triton needs to compile for a GPU that is not there."""

    def __init__(self, architecture: int):
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        # Triton keeps compiled kernels by device.
        return self.architecture

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def compiled_for(architecture: int) -> Iterator[list]:
    """Launches within it compile, and their kernels are in the list."""
    launched: list = []
    before, run = driver._active, JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        launched.append((self.__name__, kernel))
        return kernel

    driver.set_active(FakeDriver(architecture))
    JITFunction.run = compile_only
    try:
        with implementation("triton"):
            yield launched
    finally:
        JITFunction.run = run
        driver._active = before


def cases() -> list[Case]:
    """The operations at the shapes of a 96^3 patch."""
    found = [
        Case(
            "vector_quantize and statistics",
            quantize,
            {"_search": (MATRIX, WIDE_READ), "_take": (WIDE_READ, WIDE_WRITE), "_add_up": (("atomic",),)},
            quick=True,
        ),
        Case("latent_condition 8 x 24^3", condition, {}, quick=True),
        Case("denoise_step 8 x 24^3", step, {}, quick=True),
        Case("standard_normal 8 x 24^3", noise, {"_standard_normal": (WIDE_WRITE,)}, quick=True),
    ]
    both = {"_forward": (MATRIX, WIDE_READ, WIDE_WRITE), "_backward": (MATRIX, WIDE_READ, WIDE_WRITE)}
    for precision in ("bfloat16", "float16", "float32", "tf32"):
        for edge in (24, 3):
            quick = precision == "bfloat16" and edge == 24
            for name, operation in (("depth_attention", depth), ("spatial_linear", linear)):
                call = partial(operation, precision, edge)
                found.append(Case(f"{name} {precision} {edge}^2", call, both, quick=quick))
    blocks = {
        "depth": {"_attend": (MATRIX, WIDE_READ, WIDE_WRITE)},
        "linear": {"_attend_linearly": (MATRIX, WIDE_READ, WIDE_WRITE)},
        "spatial": {"_attend": (MATRIX, WIDE_READ, WIDE_WRITE)},
    }
    for precision in ("bfloat16", "float16", "float32", "tf32"):
        for channels, edge in LEVELS:
            for kind in ("depth", "linear") if edge > 3 else ("depth", "linear", "spatial"):
                needs = {**blocks[kind], "_project_and_add": (MATRIX, WIDE_READ, WIDE_WRITE)}
                quick = precision == "bfloat16" and (channels == 24 or kind == "spatial")
                name = f"{kind} block {precision} {channels} x {edge}^2"
                found.append(Case(name, partial(block, kind, precision, channels, edge), needs, quick=quick))
    wide = {
        "_chunk_moments": (WIDE_READ,),
        "_apply": (WIDE_READ, WIDE_WRITE),
        "_channel_gradients": (WIDE_READ,),
        "_input_gradient": (WIDE_READ, WIDE_WRITE),
    }
    for precision in ("bfloat16", "float16", "float32"):
        for channels, edge, modulated in ((24, 24, True), (192, 3, True), (32, 48, False), (64, 24, False)):
            name = f"norm {precision} {channels} x {edge}^3 {'modulated' if modulated else 'rim'}"
            call = partial(norm, precision, channels, edge, modulated=modulated)
            found.append(Case(name, call, wide, quick=precision == "bfloat16" and channels in (24, 32)))
    return found + convolutions()


# Channels and size of the input, channels out, kernel, and what else there is: those of the autoencoder at 96^3 and of
# the U-Net's levels. Those with `every` are compiled in every precision.
V96, V48, V24 = (96,) * 3, (48,) * 3, (24,) * 3
K3, K4, K1 = (3,) * 3, (4,) * 3, (1,) * 3
BY_2, FROM_2 = {"stride": (2,) * 3}, {"stride": (2,) * 3, "transposed": True}
INNER = {"norm": True, "residual": True, "moments": True}
SLICES = {"zero_rim": True}
CONVOLUTIONS = {
    "1 to 16 at 96^3": (1, V96, 16, K3, {"read": torch.float32}),
    "16 to 32 by 2 at 96^3": (16, V96, 32, K4, BY_2 | {"moments": True}),
    "32 to 32 at 48^3": (32, V48, 32, K3, INNER),
    "32 to 64 by 2 at 48^3": (32, V48, 64, K4, BY_2 | {"moments": True}),
    "64 to 64 at 24^3": (64, V24, 64, K3, INNER),
    "64 to 8, 1^3 at 24^3": (64, V24, 8, K1, {"norm": True, "write": torch.float32}),
    "8 to 64, 1^3 at 24^3": (8, V24, 64, K1, {"moments": True, "read": torch.float32}),
    "64 to 64 times 2 at 24^3": (64, V24, 64, K4, FROM_2 | {"norm": True, "moments": True}),
    "64 to 64 at 48^3": (64, V48, 64, K3, INNER),
    "64 to 64 at 48^3 alone": (64, V48, 64, K3, {}),
    "64 to 32 times 2 at 48^3": (64, V48, 32, K4, FROM_2 | {"moments": True}),
    "32 to 32 at 96^3": (32, V96, 32, K3, INNER),
    "32 to 32 at 96^3 alone": (32, V96, 32, K3, {}),
    "32 to 1 at 96^3": (32, V96, 1, K3, {"write": torch.float32}),
    "slices 17 to 24, 7^2": (8, V24, 24, (7, 7), SLICES | {"skip": 9, "read": torch.float32}),
    "slices 24 to 24": (24, V24, 24, (3, 3), SLICES | {"norm": True, "moments": True}),
    "slices 48 to 48": (48, (24, 12, 12), 48, (3, 3), SLICES | {"norm": True, "moments": True}),
    "slices 96 to 96": (96, (24, 6, 6), 96, (3, 3), SLICES | {"norm": True, "moments": True}),
    "slices 192 to 192": (192, (24, 3, 3), 192, (3, 3), SLICES | {"norm": True, "moments": True}),
    "slices 96 + 96 to 48": (96, (24, 6, 6), 48, (3, 3), SLICES | {"skip": 96, "moments": True}),
    "slices 96 + 96 to 48, 1^2": (
        96,
        (24, 6, 6),
        48,
        (1, 1),
        SLICES | {"skip": 96, "residual": True, "residual_norm": True},
    ),
    "slices 24 to 24 by 2": (24, V24, 24, (4, 4), SLICES | {"stride": (1, 2, 2)}),
    "slices 48 to 48 times 2": (48, (24, 6, 6), 48, (4, 4), SLICES | {"stride": (1, 2, 2), "transposed": True}),
}
EVERY_PRECISION = ("32 to 32 at 96^3", "64 to 64 at 48^3", "64 to 32 times 2 at 48^3", "slices 48 to 48")
QUICK = ("32 to 32 at 96^3", "64 to 32 times 2 at 48^3")


def convolutions() -> list[Case]:
    """As inference launches them."""
    found = []
    for precision in ("bfloat16", "float16", "float32", "tf32"):
        for name, (channels, size, out, kernel, options) in CONVOLUTIONS.items():
            if precision != "bfloat16" and name not in EVERY_PRECISION:
                continue
            # One channel cannot be read 16 bytes at once, nor written; and nothing is on its way before a first step.
            read = () if channels == 1 else (WIDE_READ,) if "1^3" in name else (("async128",),)
            special = (("tanh",),) if precision == "bfloat16" and options.get("norm") else ()
            needs = (MATRIX, *read, *special, *(() if out == 1 else (WIDE_WRITE,)))
            call = partial(convolution, precision, channels, size, out, kernel, **options)
            quick = precision == "bfloat16" and name in QUICK
            both = {"_convolve_deep": needs, "_convolve_rows": needs}
            found.append(Case(f"convolve {precision} {name}", call, both, quick=quick))
    found += [
        Case("norm_of_moments 32 x 3456", partial(joined, 32, 3456, groups=32), {}, quick=True),
        Case("norm_of_moments 24 x 216 modulated", partial(joined, 24, 216, groups=8), {}),
    ]
    sums = {"_norm_silu": (WIDE_READ, WIDE_WRITE)}
    for precision in ("bfloat16", "float16", "float32"):
        for channels, edge in ((24, 24), (192, 3)):
            call = partial(summed, precision, channels, edge)
            quick = precision == "bfloat16" and channels == 24
            found.append(Case(f"norm_silu {precision} {channels} x {edge}^2", call, sums, quick=quick))
    return found


def joined(channels: int, pieces: int, *, groups: int) -> None:
    moments = PartialMoments(torch.ones(1, pieces), *torch.ones(2, 1, pieces, channels))
    modulation = {name: torch.ones(1, channels) for name in ("scale", "shift")} if groups < channels else {}
    ones = torch.ones(channels)
    norm_of_moments(moments, ones, bias=ones, groups=groups, eps=1e-5, **modulation)


def summed(precision: str, channels: int, edge: int) -> None:
    shape, dtype = (1, 24, edge, edge, channels), getattr(torch, precision)
    x, residual = (torch.ones(shape, dtype=dtype).movedim(-1, 1) for _ in range(2))
    norm_silu(x, norm=Affine(*torch.ones(2, 1, channels)), residual=residual)


def convolution(
    precision: str,
    channels: int,
    size: Sequence[int],
    out: int,
    kernel: Sequence[int],
    *,
    skip: int = 0,
    norm: bool = False,
    residual: bool = False,
    residual_norm: bool = False,
    moments: bool = False,
    read: torch.dtype | None = None,
    write: torch.dtype | None = None,
    **packing,
) -> None:
    with products_in(precision) as dtype, torch.inference_mode():

        def volume(channels: int, size: Sequence[int]) -> torch.Tensor:
            return torch.zeros(1, *size, channels, dtype=read or dtype).movedim(-1, 1)

        def affine(channels: int) -> Affine:
            return Affine(torch.ones(1, channels), torch.zeros(1, channels))

        inputs = (channels, skip) if skip else (channels,)
        between = (sum(inputs), out) if packing.get("transposed") else (out, sum(inputs))
        weight = pack_convolution(torch.zeros(*between, *kernel, dtype=dtype), channels=inputs, **packing)
        convolve(
            volume(channels, size),
            weight,
            bias=torch.zeros(out, dtype=dtype),
            skip=volume(skip, size) if skip else None,
            norm=affine(channels) if norm else None,
            residual=volume(out, weight.size_out(size)) if residual else None,
            residual_norm=affine(out) if residual_norm else None,
            moments=moments,
            dtype=write,
        )


def quantize() -> None:
    # The operation itself would then use the indices that nothing has computed.
    vectors, codebook = torch.randn(13824, 8), torch.randn(16384, 8)
    indices, _, _ = launchers.nearest_code(vectors, *launchers.packed_codebook(codebook))
    launchers.code_statistics(vectors, torch.zeros_like(indices), len(codebook))


def condition() -> None:
    mask = torch.zeros(1, 1, 96, 96, 96, dtype=torch.bool)
    latent_condition(torch.randn(1, 8, 24, 24, 24), mask, code_min=torch.tensor(-1.0), code_range=torch.tensor(2.0))


def step() -> None:
    latent = torch.zeros(1, 8, 24, 24, 24).contiguous(memory_format=torch.channels_last_3d)
    denoise_step(latent, latent, torch.zeros(1, 8, 24, 24, 24), coefficients=torch.ones(6), clip=True)


def noise() -> None:
    standard_normal(torch.arange(4), 8 * 24**3, stream=7)


def depth(precision: str, edge: int) -> None:
    with products_in(precision) as dtype:
        qkv = torch.randn(1, 24, edge, edge, 768, dtype=dtype).movedim(-1, 1).requires_grad_()
        bias = torch.randn(8, 24, 24, requires_grad=True)
        out = depth_attention(qkv, bias, 10000.0 ** -(torch.arange(0, 32, 2) / 32))
        out.backward(torch.ones_like(out))


def linear(precision: str, edge: int) -> None:
    with products_in(precision) as dtype:
        qkv = torch.randn(1, 24, edge, edge, 768, dtype=dtype).movedim(-1, 1).requires_grad_()
        out = spatial_linear_attention(qkv, heads=8)
        out.backward(torch.ones_like(out))


def block(kind: str, precision: str, channels: int, edge: int) -> None:
    with torch.no_grad(), products_in(precision) as dtype:
        operation, _, inputs = attention_block(kind, channels, edge, batch=1, slices=24, dtype=dtype, device="cpu")
        operation(*inputs)


def norm(precision: str, channels: int, edge: int, *, modulated: bool) -> None:
    x = torch.randn(1, edge, edge, edge, channels, dtype=getattr(torch, precision)).movedim(-1, 1).requires_grad_()
    modulation = {name: torch.randn(1, channels) for name in ("scale", "shift")} if modulated else {}
    out = group_norm_modulate_silu(
        x,
        torch.ones(channels),
        bias=torch.zeros(channels),
        groups=8 if modulated else 32,
        eps=1e-5,
        replicate=None if modulated else (1,) * 6,
        **modulation,
    )
    out.backward(torch.ones_like(out))


def compiled(case: Case, architecture: int) -> list[Compiled]:
    """Every kernel that the case launches, once."""
    with compiled_for(architecture) as launched:
        case.call()
    distinct = {kernel.hash: (name, kernel) for name, kernel in launched}
    return [examine(case, name, kernel, architecture) for name, kernel in distinct.values()]


def examine(case: Case, name: str, kernel, architecture: int) -> Compiled:
    """What cuobjdump and nvdisasm say about a compiled kernel, and ptxas about what it spilled."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _output("cuobjdump", "--dump-resource-usage", cubin)
        code = _output("nvdisasm", "-c", cubin)
    names = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]+)", code)
    counted = Counter(next((label for label, pattern in CLASSES if re.match(pattern, op)), "other") for op in names)
    registers, stack = (int(re.search(rf"{key}:(\d+)", usage).group(1)) for key in ("REG", "STACK"))
    # A spill shows as local memory; assembling once more tells how much of it there is.
    spilled = _spilled_bytes(kernel, architecture) if stack or counted["local"] else 0
    missed = []
    if not names:
        missed.append("nothing disassembled")
    if spilled:
        missed.append(f"{spilled} bytes spilled")
    elif stack or counted["local"]:
        missed.append("uses local memory")
    for wanted in case.needs.get(name, ()):
        if not any(counted[label] for label in wanted):
            missed.append(f"no {' or '.join(wanted)}")
    return Compiled(
        case.name,
        name,
        architecture,
        kernel.metadata.num_warps,
        registers,
        spilled,
        kernel.metadata.shared,
        counted,
        missed,
    )


def _spilled_bytes(kernel, architecture: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(kernel.asm["ptx"])
        target = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
        log = _output("ptxas", "-v", f"--gpu-name={target}", ptx, "-o", Path(folder) / "out")
    return sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", log)))


def _output(tool: str, *arguments: object) -> str:
    done = subprocess.run([TOOLS / tool, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def gate(wanted: Sequence[Case], architectures: Sequence[int] = ARCHITECTURES) -> list[Compiled]:
    """Compiles the cases; prints a line for every kernel as it comes, and a verdict."""
    print(f"{'call':<42}{'kernel':<22}{'gpu':<5}{'warps':>6}{'regs':>6}{'spill':>7}{'shared':>8}  instructions")
    rows = []
    for case in wanted:
        for architecture in architectures:
            for row in compiled(case, architecture):
                rows.append(row)
                print(row.line(), flush=True)
    missed = sum(bool(row.missed) for row in rows)
    print(f"{missed} of {len(rows)} kernels MISSED" if missed else f"all {len(rows)} kernels as intended")
    return rows


def table(results: dict) -> str:
    """Markdown: for each call and kernel, registers by architecture, and the instructions on the newest."""
    newest = max(row["architecture"] for row in results["kernels"])
    lines = [
        f"| call | kernel | warps | registers | spilled bytes | instructions on sm_{newest} |",
        "|---|---|---|---|---|---|",
    ]
    kernels: dict[tuple[str, str], list[dict]] = {}
    for row in results["kernels"]:
        kernels.setdefault((row["case"], row["kernel"]), []).append(row)
    for (case, kernel), rows in kernels.items():
        rows.sort(key=lambda row: row["architecture"])
        seen = rows[-1]["instructions"]
        found = ", ".join(f"{name} {seen[name]}" for name, _ in CLASSES if seen.get(name))
        registers = ", ".join(str(row["registers"]) for row in rows)
        spilled = sum(row["spilled_bytes"] for row in rows)
        lines.append(f"| {case} | {kernel.strip('_')} | {rows[-1]['warps']} | {registers} | {spilled} | {found} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="TEXT", help="only cases whose name contains it")
    parser.add_argument("--quick", action="store_true", help="only what the tests check")
    parser.add_argument("--architectures", nargs="+", type=int, default=ARCHITECTURES)
    parser.add_argument("--json", type=Path, help="keep the results in this file")
    parser.add_argument("--table", action="store_true", help=f"only print the table of results/{RESULTS.name}")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(RESULTS.read_text())))
        return 0
    print(f"triton {triton.__version__}, torch {torch.__version__}")
    rows = gate(
        [case for case in cases() if args.k in case.name and (case.quick or not args.quick)], args.architectures
    )
    if args.json:
        made = {"triton": triton.__version__, "torch": torch.__version__, "commit": commit()}
        write_json(args.json, {**made, "kernels": [vars(row) for row in rows]})
    return int(not rows or any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
