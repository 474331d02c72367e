"""Times one of the operations, or all, beside plain and good PyTorch; on a CPU the references, without any kernel.

`python benchmarks/kernels.py depth_attention --dtype bfloat16 --batch 4`. A variant is timed only if the operation's
output and gradients are those of float64; exits 1 otherwise. Needs torch, triton, numpy and einops only.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from kernel_cases import OPERATIONS, cases
from kernel_timing import measure_ceilings, summary, table, time_case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operation", choices=[*OPERATIONS, "all"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a tenth of the shapes")
    parser.add_argument("--compile", action="store_true", help="also torch.compile: seconds to minutes per shape")
    args = parser.parse_args()
    dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    if args.device == "cpu" and dtype == "float16":
        parser.error("float16 on a CPU: take float32 or bfloat16")
    ceilings = measure_ceilings(args.device)
    print(f"{args.device}: {ceilings}")
    rows = []
    for operation in OPERATIONS if args.operation == "all" else (args.operation,):
        for batch in args.batch:
            for case in cases(
                operation, batch=batch, dtype=getattr(torch, dtype), device=args.device, small=args.small
            ):
                found = list(
                    time_case(
                        case,
                        batch=batch,
                        dtype=dtype,
                        device=args.device,
                        ceilings=ceilings,
                        with_compile=args.compile,
                    )
                )
                print(table(found), flush=True)
                rows += found
    print(f"\n{summary(rows)}")
    return int(any(row.remark.startswith("REFUSED") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
