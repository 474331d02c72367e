"""Times one of the operations, or all, beside plain and good PyTorch; on a CPU the references, without any kernel.

`python benchmarks/kernels.py depth_attention --dtype bfloat16 --batch 4`. A variant is timed only if the operation's
output and gradients are those of float64; exits 1 otherwise.
"""

import argparse
import sys

import torch
from kernel_cases import OPERATIONS, cases
from kernel_timing import measure_ceilings, table, time_case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operation", choices=[*OPERATIONS, "all"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a tenth of the shapes")
    args = parser.parse_args()
    if args.device == "cpu" and args.dtype == "float16":
        parser.error("float16 on a CPU: take float32 or bfloat16")
    ceilings = measure_ceilings(args.device)
    refused = 0
    for operation in OPERATIONS if args.operation == "all" else (args.operation,):
        for batch in args.batch:
            found = cases(
                operation, batch=batch, dtype=getattr(torch, args.dtype), device=args.device, small=args.small
            )
            for case in found:
                rows = time_case(
                    case, batch=batch, dtype=args.dtype, device=args.device, ceilings=ceilings, backward=True
                )
                refused += any(row.remark.startswith("REFUSED") for row in rows)
                print(table(rows), flush=True)
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
