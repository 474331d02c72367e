"""Mistakes on the command line in one line, with the nearest word that is known."""

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn

_UNKNOWN = "unrecognized arguments: "
_NOT_A_CHOICE = re.compile(
    r"argument (?P<what>.+?): invalid choice: '?(?P<given>.*?)'? \(choose from (?P<choices>.*)\)"
)
_NOT_OF_THE_TYPE = re.compile(r"argument (?P<what>.+?): invalid (?P<kind>\w+) value: (?P<given>.*)")
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are a line each, without the usage: that stands in --help."""

    def error(self, message: str) -> NoReturn:
        said = self._in_words(message)
        more = "" if said.endswith("?") else f"; `{self.prog} --help` says what there is"
        self.exit(2, f"{self.prog}: {said}{more}\n")

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
