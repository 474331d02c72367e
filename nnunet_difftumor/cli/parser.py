"""Mistakes on the command line in one line, with the nearest word that is known; and names that options had before."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from nnunet_difftumor.cli.colour import ERROR, NOTE, painted

# By the names that options had before, which are in no help, the ones that they have now.
OLD_NAMES = {"--output": "--out"}
OLD_NAMES_WORK_UNTIL = "0.3"
_UNKNOWN = "unrecognized arguments: "
_NOT_A_CHOICE = re.compile(
    r"argument (?P<what>.+?): invalid choice: '?(?P<given>.*?)'? \(choose from (?P<choices>.*)\)"
)
_NOT_OF_THE_TYPE = re.compile(r"argument (?P<what>.+?): invalid (?P<kind>\w+) value: (?P<given>.*)")
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are a line each, without the usage: that stands in --help."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(self._with_new_names(words), namespace)

    def error(self, message: str) -> NoReturn:
        said = self._in_words(message)
        more = "" if said.endswith("?") else f"; `{self.prog} --help` says what there is"
        self.exit(2, f"{painted(f'{self.prog}:', ERROR, sys.stderr)} {said}{more}\n")

    def _with_new_names(self, words: Sequence[str]) -> list[str]:
        """The words with old names, also abbreviated ones, replaced by the new ones; each is said once."""
        known = self._option_string_actions
        renamed: dict[str, str] = {}
        found: list[str] = []
        for number, word in enumerate(words):
            if word == "--":
                return found + list(words[number:])
            name, sign, value = word.partition("=")
            if len(name) > 2 and name.startswith("--") and not any(option.startswith(name) for option in known):
                for old, new in OLD_NAMES.items():
                    if old.startswith(name) and new in known:
                        word, renamed[old] = f"{new}{sign}{value}", new
            found.append(word)
        for old, new in renamed.items():
            note = f"{old} is now {new}; the old name works until {OLD_NAMES_WORK_UNTIL}"
            print(f"{painted(f'{self.prog}:', NOTE, sys.stderr)} {note}", file=sys.stderr)
        return found

    def _in_words(self, message: str) -> str:
        if message.startswith(_UNKNOWN):
            return self._unknown(message.removeprefix(_UNKNOWN))
        if found := _NOT_A_CHOICE.fullmatch(message):
            choices = re.findall(r"[^\s',]+", found["choices"])
            nearest = _nearest(found["given"], choices)
            return f"{found['what']} {found['given']} is unknown{nearest or ', expected ' + ', '.join(choices)}"
        if found := _NOT_OF_THE_TYPE.fullmatch(message):
            return f"{found['what']} is {found['given']}, expected {_KINDS.get(found['kind'], found['kind'])}"
        return message.removeprefix("argument ").replace("the following arguments are required: ", "missing: ")

    def _unknown(self, given: str) -> str:
        """Words that belong to no argument: mistyped options, or one name more than there are places."""
        option = next((word for word in given.split() if word.startswith("-")), None)
        if option is None:
            return f"{given}: more than is asked for"
        name = option.partition("=")[0]
        return f"there is no option {name}{_nearest(name, _options(self))}"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _options(below)


def _nearest(given: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
