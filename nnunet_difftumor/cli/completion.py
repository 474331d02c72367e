"""Print a script with which the shell completes verbs and options.

bash: difftumor completion bash > ~/.local/share/bash-completion/completions/difftumor
zsh:  difftumor completion zsh > a folder of $fpath, as _difftumor
"""

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> None:
    import importlib

    import shtab

    from nnunet_difftumor.cli.main import VERBS, module_name
    from nnunet_difftumor.cli.output import OPTIONS

    parser = argparse.ArgumentParser(prog="difftumor")
    verbs = parser.add_subparsers(dest="verb")
    for verb, line in VERBS.items():
        module = importlib.import_module(f"nnunet_difftumor.cli.{module_name(verb)}")
        module.add_arguments(verbs.add_parser(verb, help=line, parents=[OPTIONS]))
    print(shtab.complete(parser, args.shell))
