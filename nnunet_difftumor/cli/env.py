"""Prints the shell line that lets nnU-Net find the trainers where .pth files are not read.

Use it as: eval "$(difftumor env)"
"""

import argparse

from nnunet_difftumor.installation import shell_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> None:
    del args
    print(shell_line())
