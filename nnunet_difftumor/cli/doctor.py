"""Checks the installation and the machine, one line per check, with what to do about each problem.

Versions, nnU-Net's folders and their free space, torchvision, the trainers, GPU, driver and Triton, cores and workers,
shared memory. Exit status: 0 if there is no problem, 1 otherwise; notes are no problems.
"""

import argparse

from nnunet_difftumor.installation import torchvision_repair
from nnunet_difftumor.installation.checks import findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--fix", action="store_true", help="repair a torchvision whose operators do not fit torch, in this environment"
    )
    change.add_argument("--unfix", action="store_true", help="take that repair away, and do nothing else")


def run(args: argparse.Namespace) -> int:
    if args.unfix:
        print("removed the repair" if torchvision_repair.remove() else "there was no repair to remove")
        return 0
    if args.fix:
        done = torchvision_repair.repair()
        if done:
            args.say(f"{'fixed':<8} {done}")
    problems = 0
    for finding in findings():
        args.say(str(finding))
        problems += finding.status == "problem"
    return 1 if problems else 0
