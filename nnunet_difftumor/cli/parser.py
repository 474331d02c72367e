"""Mistakes on the command line in one line, with the nearest word that is known; and names that options had before."""

import argparse
import difflib
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from nnunet_difftumor.cli.colour import ERROR, painted

# By the names that options had before, which are in no help, the ones that they have now.
OLD_NAMES = {"--output": "--out"}
OLD_NAMES_WORK_UNTIL = "0.3"
_UNKNOWN = "unrecognized arguments: "
_NOT_A_CHOICE = re.compile(
    r"argument (?P<what>.+?): invalid choice: '?(?P<given>.*?)'? \(choose from (?P<choices>.*)\)"
)
_NOT_OF_THE_TYPE = re.compile(r"argument (?P<what>.+?): invalid (?P<kind>\w+) value: (?P<given>.*)")
# Less alike, words are not taken for one another: gpu is not cpu.
_LIKE = 0.7
_IS_WRONG = re.compile(r"argument (?P<what>.+?): (?P<seen>is .*)")
_KINDS = {**dict.fromkeys(("int", "positive", "not_negative"), "a whole number"), "float": "a number"}
_MISSING = "the following arguments are required: "


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are a line each, without the usage: that stands in --help.

    Attributes:
        more_options: names that this parser does not know, and that may be meant.
    """

    more_options: Collection[str] = ()
    _words: Sequence[str] = ()
    _renamed: Mapping[str, str] = MappingProxyType({})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words, self._renamed = self._with_new_names(sys.argv[1:] if args is None else list(args))
        return super().parse_known_args(self._words, namespace)

    def notes(self) -> list[str]:
        """A line for each old name among the words that were parsed."""
        chosen = self._chosen()
        return [
            f"{old} is now {new}; the old name works until {OLD_NAMES_WORK_UNTIL}" for old, new in self._renamed.items()
        ] + (chosen.notes() if isinstance(chosen, Parser) else [])

    def error(self, message: str) -> NoReturn:
        said = self._in_words(message)
        chosen = self._chosen() or self
        more = "" if said.endswith("?") else f"; `{chosen.prog} --help` says what there is"
        self.exit(2, f"{painted(f'{self.prog}:', ERROR, sys.stderr)} {said}{more}\n")

    def _with_new_names(self, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The words with old names, also abbreviated ones, replaced by the new ones; and the new ones by the old."""
        known = self._option_string_actions
        renamed: dict[str, str] = {}
        found: list[str] = []
        for number, word in enumerate(words):
            if word == "--":
                return found + list(words[number:]), renamed
            name, sign, value = word.partition("=")
            if len(name) > 2 and name.startswith("--") and not any(option.startswith(name) for option in known):
                for old, new in OLD_NAMES.items():
                    if old.startswith(name) and new in known:
                        word, renamed[old] = f"{new}{sign}{value}", new
            found.append(word)
        return found, renamed

    def _in_words(self, message: str) -> str:
        if message.startswith(_UNKNOWN):
            return self._unknown(message.removeprefix(_UNKNOWN))
        if found := _NOT_A_CHOICE.fullmatch(message):
            choices = re.findall(r"[^\s',]+", found["choices"])
            nearest = _nearest(found["given"], choices)
            return f"{found['what']} {found['given']} is unknown{nearest or ', expected ' + ', '.join(choices)}"
        if found := _NOT_OF_THE_TYPE.fullmatch(message):
            return f"{found['what']} is {found['given']}, expected {_KINDS.get(found['kind'], found['kind'])}"
        if found := _IS_WRONG.fullmatch(message):
            return f"{found['what']} {found['seen']}"
        if message.startswith(_MISSING) and (strange := self._strange()):
            return self._unknown(strange)
        return message.removeprefix("argument ").replace(_MISSING, "missing: ")

    def _strange(self) -> str | None:
        """The first of the words that looks like a long option, and is none."""
        known = list(_options(self))
        names = (word.partition("=")[0] for word in self._words if word.startswith("--") and len(word) > 2)
        return next((name for name in names if not any(option.startswith(name) for option in known)), None)

    def _chosen(self) -> argparse.ArgumentParser | None:
        """The parser below this one that the words name, if they do."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return next((action.choices[word] for word in self._words if word in action.choices), None)
        return None

    def _unknown(self, given: str) -> str:
        """Words that belong to no argument: mistyped options, or one name more than there are places."""
        option = next((word for word in given.split() if word.startswith("-")), None)
        if option is None:
            return f"{given}: more than is asked for"
        name = option.partition("=")[0]
        known = [*_options(self._chosen() or self), *self.more_options]
        return f"there is no option {name}{_nearest(name, known)}"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _options(below)


def _nearest(given: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(known), 1, cutoff=_LIKE)
    return f"; did you mean {close[0]}?" if close else ""
