"""README and docs, as tests read them: their shell lines, JSON examples and links."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [README, *DOCS]


def blocks(page: Path, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(*names: str, pages: Iterable[Path] = PAGES) -> list[list[str]]:
    """Words of the lines in fenced shell blocks that begin with one of the names."""
    text = "".join(block for page in pages for block in blocks(page, "sh"))
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] in names]


def links(page: Path) -> list[str]:
    """Targets of links and pictures that are not on the web, with their #part."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())


def anchors(page: Path) -> set[str]:
    """What `#part` can be, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def as_id(words: list[str]) -> str:
    return " ".join(words)[:60]
