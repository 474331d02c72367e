"""What a check found."""

from collections.abc import Sequence
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that could not be looked at.

    Attributes:
        kind: what was looked for, one word or several with hyphens.
        case: name; empty if it is about the whole dataset.
        severity: "error" where a training would learn something wrong, "warning" where it may, "note" otherwise.
        seen: what was seen, with file and figures.
        do: what to do; empty if `seen` says it.
    """

    kind: str
    case: str
    severity: str
    seen: str
    do: str

    def line(self) -> str:
        """For people."""
        where = f"{self.case}: " if self.case else ""
        return f"{self.severity.upper()} {where}{self.seen}" + (f"; {self.do}" if self.do else "")


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are wrong for certain."""
    return [finding for finding in findings if finding.severity == ERROR]
