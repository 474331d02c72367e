"""A page of headings, tables, pictures and slices, in one file without any other."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.pages.slices import SliceStack

# Nothing is fetched, whatever a file name or a message holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_TYPES = {".png": "image/png", ".gif": "image/gif"}


class Page:
    """Collects what is shown, from top to bottom, and writes it.

    Every text is escaped: names of files and messages cannot become markup.

    Args:
        title: of the page.
        lead: what the page is about, in a sentence or two.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = title
        self._top = f"<h1>{escape(title)}</h1>" + (f'<p class="lead">{escape(lead)}</p>' if lead else "")
        self._body: list[str] = []
        self._contents: list[tuple[str, str]] = []
        self._has_slices = False

    def heading(self, text: str) -> None:
        """Begins a section."""
        anchor = f"section-{len(self._contents) + 1}"
        self._contents.append((anchor, text))
        self._body.append(f'<h2 id="{anchor}">{escape(text)}</h2>')

    def text(self, text: str) -> None:
        """A paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def warning(self, text: str) -> None:
        """A paragraph that stands out."""
        self._body.append(f'<p class="warning">{escape(text)}</p>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers stand on the right."""
        cells = "".join(f"<th>{escape(name)}</th>" for name in head)
        lines = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        self._body.append(
            f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
        )

    def facts(self, values: Mapping[str, Any]) -> None:
        """Names and values; those that are records or lists as JSON."""
        rows = "".join(
            f"<tr><th>{escape(str(name))}</th><td>{escape(_as_text(value))}</td></tr>" for name, value in values.items()
        )
        self._body.append(f'<div class="wide"><table class="facts"><tbody>{rows}</tbody></table></div>')

    def folded(self, summary: str, values: Mapping[str, Any]) -> None:
        """Names and values that are shown when asked for, and in print."""
        self._body.append(f"<details><summary>{escape(summary)}</summary>")
        self.facts(values)
        self._body.append("</details>")

    def commands(self, lines: Sequence[str]) -> None:
        """Lines for a shell."""
        self._body.append(f"<pre><code>{escape(chr(10).join(lines))}</code></pre>")

    def picture(self, path: str | Path, caption: str) -> None:
        """A PNG or GIF file, which is copied into the page."""
        path = Path(path)
        data = base64.b64encode(path.read_bytes()).decode()
        self._body.append(
            f'<figure><img alt="{escape(caption)}" src="data:{_TYPES[path.suffix]};base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def link(self, text: str, path: str | PurePath) -> None:
        """Leads to a page in the same folder, or below."""
        self._body.append(f'<p><a href="{quote(PurePath(path).as_posix())}">{escape(text)}</a></p>')

    def slices(self, stack: SliceStack) -> None:
        """Slices to scroll through, with window and mask."""
        self._has_slices = True
        self._body.append(stack.to_html())

    def write(self, path: str | Path) -> None:
        """Writes the page, whole or not at all."""
        assets = files("nnunet_difftumor.pages") / "assets"
        contents = "".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in self._contents)
        script = (assets / "slices.js").read_text(encoding="utf-8") if self._has_slices else ""
        page = (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{escape(self._title)}</title>"
            f"<style>{(assets / 'page.css').read_text(encoding='utf-8')}</style></head>\n"
            f"<body><main>{self._top}"
            + (f"<nav>{contents}</nav>" if len(self._contents) > 1 else "")
            + "\n".join(self._body)
            + "</main>"
            + (f"<script>{script}</script>" if script else "")
            + "</body></html>\n"
        )
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8")


def _cell(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td class="number">{escape(_as_text(value))}</td>' if number else f"<td>{escape(_as_text(value))}</td>"


def _as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    return str(value)
