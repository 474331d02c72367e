"""One line of the report of `difftumor doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """status is "ok", "problem" (the exit status says so) or "note"; advice says what to do about it."""

    status: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.status:<8} {self.text}" + (f". To do: {self.advice}" if self.advice else "")
