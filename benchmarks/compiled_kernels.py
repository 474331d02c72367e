"""Every kernel compiled for NVIDIA GPUs by its real launcher, on a machine without one: registers, spills,
instructions.

Calls the public operations, forward and backward, on CPU tensors of the networks' shapes, with a driver in Triton's
place that compiles what would run and runs nothing. Each kernel then must have no spills, no local memory, and the
instructions that it was written for. Exits 1 otherwise. Zero spills is necessary for a fast kernel, not sufficient.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    sys.exit("unset TRITON_INTERPRET: the interpreter compiles nothing")

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from nnunet_difftumor.kernels import depth_attention, group_norm_modulate_silu, spatial_linear_attention
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.triton import vector_quantize as launchers

ARCHITECTURES = (80, 90)
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Classes of instructions, the first that matches.
CLASSES = (
    ("wgmma", r"HGMMA|QGMMA|IGMMA"),
    ("mma", r"HMMA|IMMA|DMMA"),
    ("local", r"STL|LDL"),
    ("async128", r"LDGSTS\S*\.128"),
    ("load128", r"LDG\S*\.128"),
    ("store128", r"STG\S*\.128"),
    ("atomic", r"RED|ATOM"),
)
MATRIX, WIDE_READ, WIDE_WRITE = ("wgmma", "mma"), ("async128", "load128"), ("store128",)


@dataclass(frozen=True)
class Case:
    """A call of a public operation, and what each kernel that it launches must contain: one of each set of classes."""

    name: str
    call: Callable[[], None]
    needs: dict[str, tuple[tuple[str, ...], ...]]


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
            f"{self.case:<34}{self.kernel.strip('_'):<22}sm_{self.architecture}{self.warps:6}{self.registers:6}"
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
    found = []
    for training in (False, True):
        found.append(
            Case(
                f"vector_quantize{' training' if training else ''}",
                lambda training=training: quantize(statistics=training),
                {"_search": (MATRIX, WIDE_READ), "_add_up": (("atomic",),)},
            )
        )
    both = {"_forward": (MATRIX, WIDE_READ, WIDE_WRITE), "_backward": (MATRIX, WIDE_READ, WIDE_WRITE)}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        of = str(dtype).removeprefix("torch.")
        for edge in (24, 3):
            found.append(Case(f"depth_attention {of} {edge}^2", lambda d=dtype, e=edge: depth(d, e), both))
            found.append(Case(f"spatial_linear {of} {edge}^2", lambda d=dtype, e=edge: linear(d, e), both))
    wide = {
        "_chunk_moments": (WIDE_READ,),
        "_apply": (WIDE_READ, WIDE_WRITE),
        "_channel_gradients": (WIDE_READ,),
        "_input_gradient": (WIDE_READ, WIDE_WRITE),
    }
    for dtype in (torch.bfloat16, torch.float32):
        of = str(dtype).removeprefix("torch.")
        found.append(Case(f"norm {of} 24 x 24^3 modulated", lambda d=dtype: norm(d, 24, 24, modulated=True), {}))
        found.append(Case(f"norm {of} 32 x 48^3 rim", lambda d=dtype: norm(d, 32, 48, modulated=False), wide))
    return found


def quantize(*, statistics: bool) -> None:
    # The operation itself would go on with the indices that nothing has computed.
    vectors, codebook = torch.randn(13824, 8), torch.randn(16384, 8)
    indices, _ = launchers.nearest_code(vectors, *launchers.packed_codebook(codebook))
    if statistics:
        launchers.code_statistics(vectors, torch.zeros_like(indices), len(codebook))


def depth(dtype: torch.dtype, edge: int) -> None:
    qkv = torch.randn(1, 24, edge, edge, 768, dtype=dtype).movedim(-1, 1).requires_grad_()
    bias = torch.randn(8, 24, 24, requires_grad=True)
    out = depth_attention(qkv, bias, 10000.0 ** -(torch.arange(0, 32, 2) / 32))
    out.backward(torch.ones_like(out))


def linear(dtype: torch.dtype, edge: int) -> None:
    qkv = torch.randn(1, 24, edge, edge, 768, dtype=dtype).movedim(-1, 1).requires_grad_()
    out = spatial_linear_attention(qkv, heads=8)
    out.backward(torch.ones_like(out))


def norm(dtype: torch.dtype, channels: int, edge: int, *, modulated: bool) -> None:
    x = torch.randn(1, edge, edge, edge, channels, dtype=dtype).movedim(-1, 1).requires_grad_()
    modulation = {name: torch.randn(1, channels) for name in ("scale", "shift")} if modulated else {}
    out = group_norm_modulate_silu(
        x,
        torch.ones(channels),
        bias=torch.zeros(channels),
        groups=8,
        eps=1e-5,
        replicate=None if modulated else (1,) * 6,
        **modulation,
    )
    out.backward(torch.ones_like(out))


def examine(case: Case, name: str, kernel, architecture: int) -> Compiled:
    """What cuobjdump, nvdisasm and ptxas say about a compiled kernel."""
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder) / "kernel.cubin", Path(folder) / "kernel.ptx"
        cubin.write_bytes(kernel.asm["cubin"])
        ptx.write_text(kernel.asm["ptx"])
        usage = _output("cuobjdump", "--dump-resource-usage", cubin)
        code = _output("nvdisasm", "-c", cubin)
        target = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
        log = _output("ptxas", "-v", f"--gpu-name={target}", ptx, "-o", Path(folder) / "out")
    names = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]+)", code)
    counted = Counter(next((label for label, pattern in CLASSES if re.match(pattern, op)), "other") for op in names)
    registers, stack = (int(re.search(rf"{key}:(\d+)", usage).group(1)) for key in ("REG", "STACK"))
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", log)))
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


def _output(tool: str, *arguments: object) -> str:
    done = subprocess.run([TOOLS / tool, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="TEXT", help="only cases whose name contains it")
    parser.add_argument("--architectures", nargs="+", type=int, default=ARCHITECTURES)
    args = parser.parse_args()
    print(f"triton {triton.__version__}, torch {torch.__version__}")
    print(f"{'call':<34}{'kernel':<22}{'gpu':<5}{'warps':>6}{'regs':>6}{'spill':>7}{'shared':>8}  instructions")
    missed = 0
    for case in cases():
        if args.k not in case.name:
            continue
        for architecture in args.architectures:
            with compiled_for(architecture) as launched:
                case.call()
            seen = set()
            for name, kernel in launched:
                if kernel.hash not in seen:
                    seen.add(kernel.hash)
                    row = examine(case, name, kernel, architecture)
                    missed += bool(row.missed)
                    print(row.line(), flush=True)
    print(f"{missed} kernels MISSED" if missed else "all kernels as intended")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
