"""Answer whether a method helps on your data: train its arms with several seeds, evaluate, compare with intervals.

PLAN is a YAML file, or the name of a ready plan (--list). Every arm is trained from the same first weights, for as many
steps, on the same real cases. Everything lies in one folder; run again, the command resumes, and collects
when the last run is finished: result.json, result.md and a table.
"""

import argparse
import sys
from pathlib import Path

from nnunet_difftumor.cli import options
from nnunet_difftumor.cli.colour import ERROR, painted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", nargs="?", metavar="PLAN", help="YAML file, or name of a ready plan")
    parser.add_argument("--list", action="store_true", help="print the ready plans, and stop")
    options.add_out(parser, "for everything (default: experiment_NAME)")
    options.add_dataset_id(parser, "of a prepared dataset, instead of the plan's", required=False)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="scans of the test cases, instead of the plan's")
    parser.add_argument(
        "--true-labels", type=Path, metavar="FOLDER", help="their true label maps, instead of the plan's"
    )
    options.add_device(parser, "of nnU-Net; ", said="the plan's")
    parser.add_argument(
        "--jobs", type=options.positive, default=1, metavar="N", help="runs at the same time (default: %(default)s)"
    )
    parser.add_argument("--run", metavar="NAME", help="do this run alone, by its name or number")
    parser.add_argument("--slurm", action="store_true", help="write an array script for sbatch, and run nothing")
    options.add_dry_run(parser, "print every command and an estimate of time: ")


def run(args: argparse.Namespace) -> int:
    from nnunet_difftumor.demonstration.commands import CommandFailedError
    from nnunet_difftumor.errors import InputError
    from nnunet_difftumor.experiments.collecting.tables import text
    from nnunet_difftumor.experiments.experiment import experiment
    from nnunet_difftumor.experiments.planning.reading import ready_plans

    if args.list:
        for name, about in ready_plans().items():
            print(f"{name:<20}{about}")
        return 0
    if args.plan is None:
        raise InputError("PLAN is missing; name a YAML file or a ready plan, which --list prints")
    try:
        result = experiment(
            args.plan,
            output=args.output,
            dataset_id=args.dataset_id,
            images=args.images,
            true_labels=args.true_labels,
            device=options.chosen_device(args.device),
            jobs=args.jobs,
            run=args.run,
            slurm=args.slurm,
            dry_run=args.dry_run,
            report=args.say,
        )
    except CommandFailedError as error:
        args.say(f"{painted('difftumor experiment:', ERROR, sys.stdout)} {error}")
        return 2 if error.status == 2 else 1
    if result is not None:
        print(f"\n{text(result)}")
    return 0
