"""Writes docs/commands.md from the parsers of the command `difftumor`, so that the page cannot drift from them.

Run: python docs/make_commands.py
"""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

from nnunet_difftumor.cli.main import RESUMABLE, VERBS, module_name
from nnunet_difftumor.files import atomic_path

PAGE = Path(__file__).with_name("commands.md")

_HEAD = """# Commands

Made by `python docs/make_commands.py` from the parsers; `difftumor VERB --help` says the same. nnU-Net's variables
`nnUNet_raw`, `nnUNet_preprocessed` and `nnUNet_results` must be set for the verbs that read or write datasets.

Exit status: 0 good, 1 the work failed, 2 the input was wrong (one line says what and where), 130 interrupted. After an
interruption these resume where they stopped, if called the same way: {resumable}.

Every verb takes `--quiet` (nothing is printed but errors) and `--log-file FILE` (all that the command prints is also
appended to the file). On a terminal errors are red, notes yellow and what is good green; `NO_COLOR=1` takes the colours
away, and `FORCE_COLOR=1` has them elsewhere too. The log file never has any.

An option has the same name in every verb, `-o/--out` for what is written, and axes are z, y, x. `--dry-run` of
`convert`, `prepare`, `synthesize --bank`, `export` and `experiment` says what would be done, from headers and settings,
writes nothing, and ends with the status that the real run would have for the same wrong input."""


def page() -> str:
    """The whole page."""
    head = _HEAD.format(resumable=", ".join(f"`{verb}`" for verb in RESUMABLE))
    parts = [head, "\n".join(f"- [`{verb}`](#difftumor-{verb}): {line}" for verb, line in VERBS.items())]
    for verb in VERBS:
        module = importlib.import_module(f"nnunet_difftumor.cli.{module_name(verb)}")
        parser = argparse.ArgumentParser(prog=f"difftumor {verb}")
        module.add_arguments(parser)
        parts += [f"## difftumor {verb}", module.__doc__.strip()]
        parts += _options(parser)
    return "\n\n".join(parts) + "\n"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table of the options, and a section for each of the commands below."""
    actions = [action for action in parser._actions if action.dest != "help"]
    below = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    rows = [_row(action) for action in actions if action not in below]
    if rows:
        yield "\n".join(["| option | | |", "|---|---|---|", *rows])
    for action in below:
        for sub in action.choices.values():
            yield f"### {sub.prog}"
            yield sub.description.strip()
            yield from _options(sub)


def _row(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    needed = "needed" if action.required else ""
    text = (action.help or "") % {**vars(action), "prog": ""}
    if action.choices is not None:
        text += f"; one of {', '.join(map(str, action.choices))}"
    cells = (f"`{name}{_value(action)}`", needed, text.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _value(action: argparse.Action) -> str:
    """What follows the option, as in a usage line."""
    if action.nargs == 0 or not action.option_strings:
        return ""
    if isinstance(action.metavar, tuple):
        return " " + " ".join(action.metavar)
    value = str(action.metavar or ("NAME" if action.choices is not None else action.dest.upper()))
    return f" {value} ..." if action.nargs == "+" else f" {value}"


def main() -> None:
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page())
    print(PAGE)


if __name__ == "__main__":
    main()
