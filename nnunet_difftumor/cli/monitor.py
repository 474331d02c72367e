"""Show what a training's synthesis is doing: shares, sizes, times and refusals by epoch, and the synthesis server.

Reads the files in RUN/synthesis_log, of a training that runs or has ended. Refreshes until Ctrl-C, or prints once where
the output is not a terminal.
"""

import argparse
from pathlib import Path

# To the top left corner; all from there on is cleared. What was there before the command stays in the scrollback.
_CLEAR = "\x1b[H\x1b[J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run's fold in nnUNet_results")
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="between refreshes (default: %(default)s)"
    )
    parser.add_argument("--once", action="store_true", help="print once and end")


def run(args: argparse.Namespace) -> None:
    import shutil
    import sys
    import time

    from nnunet_difftumor.errors import InputError
    from nnunet_difftumor.runs.monitor import check_run, monitor, monitor_text

    if not 0.1 <= args.interval <= 3600:
        raise InputError(f"--interval is {args.interval:g}, expected 0.1 to 3600")
    if args.once or not sys.stdout.isatty():
        print(monitor(args.run))
        return
    check_run(args.run)
    try:
        while True:
            print(_CLEAR + monitor_text(args.run, now=time.time(), size=shutil.get_terminal_size()), flush=True)
            time.sleep(args.interval)
    except KeyboardInterrupt:  # the only way out, and no failure
        print()
