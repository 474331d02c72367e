"""The one exception for input that a user can fix, and how its message shows what was seen."""

from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """Names the file or argument, what was seen, what was expected, what to do. Commands print it without traceback."""


def shown(value: Any) -> str:
    """A value from a file, for a message: its beginning, if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists in lists without end
        return f"something too long to be shown ({type(value).__name__})"
    return shortened(text)


def shortened(text: str) -> str:
    """The beginning of a text, if it is long."""
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are more."""
    if not names:
        return "none"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
