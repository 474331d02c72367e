"""Colour where a terminal shows it: errors red, notes and warnings yellow, what is good green.

None where the output is no terminal, NO_COLOR is set (https://no-color.org) or TERM is dumb; elsewhere too with
FORCE_COLOR.
"""

import os
import re
from typing import TextIO

ERROR, NOTE, OK = "31", "33", "32"
_BEGINNINGS = {"ERROR": ERROR, "WARNING": NOTE, "NOTE": NOTE, "problem": ERROR, "note": NOTE, "ok": OK, "fixed": OK}
_WORD = re.compile(rf"\s*({'|'.join(_BEGINNINGS)})\b")
_ESCAPE = re.compile(r"\x1b\[\d*m")


def is_on(stream: TextIO) -> bool:
    """Whether what is printed there may have colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def painted(text: str, colour: str, stream: TextIO) -> str:
    """A text in a colour, if it may have one where it is printed."""
    return f"\x1b[{colour}m{text}\x1b[0m" if is_on(stream) else text


def with_painted_beginning(line: str, stream: TextIO) -> str:
    """A line whose first word, such as NOTE or ok, says how good it is, with this word in its colour."""
    found = _WORD.match(line)
    if found is None:
        return line
    return line[: found.start(1)] + painted(found[1], _BEGINNINGS[found[1]], stream) + line[found.end() :]


def without_colour(text: str) -> str:
    """A text as it goes into files."""
    return _ESCAPE.sub("", text)
