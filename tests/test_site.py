"""The documentation as a site: it builds without a warning, its index is its nav, and its pages fetch nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import check_page, chromium
from pages import DOCS, REPOSITORY

pytest.importorskip("material", reason="the site is built with mkdocs-material: pip install '.[docs]'")

INDEX = REPOSITORY / "docs" / "README.md"
# Of the README and the changelog, made by docs/site_files.py, and of the index itself.
NOT_IN_INDEX = {"README.md", "overview.md", "changelog.md"}


def build(config: Path, site: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(REPOSITORY / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def groups_of_index() -> dict[str, list[tuple[str, str]]]:
    """Title and file of the pages below each heading."""
    parts = re.split(r"^## (.*)$", INDEX.read_text(), flags=re.MULTILINE)[1:]
    rows = (re.findall(r"^\| \[([^]]+)\]\(([^)]+)\)", text, re.MULTILINE) for text in parts[1::2])
    return dict(zip(parts[::2], rows, strict=True))


def groups_of_nav() -> dict[str, list[tuple[str, str]]]:
    from mkdocs.config import load_config

    nav = load_config(str(REPOSITORY / "mkdocs.yml"))["nav"]
    groups = {name: pages for group in nav for name, pages in group.items()}
    return {
        name: [(title, path) for page in pages for title, path in page.items() if path not in NOT_IN_INDEX]
        for name, pages in groups.items()
    }


def test_index_and_nav_hold_every_page_in_the_same_groups():
    assert groups_of_index() == groups_of_nav()
    listed = [path for pages in groups_of_index().values() for _, path in pages]
    assert sorted(listed) == [page.name for page in DOCS if page != INDEX]


@pytest.mark.slow(file_seconds=25)
def test_every_page_is_built_and_links_inside_the_site(site):
    """Strict: mkdocs itself stops at a link or an anchor that leads nowhere."""
    built = {page.name for page in site.glob("*.html")} - {"404.html", "index.html"}
    assert built == {f"{page.stem}.html" for page in DOCS if page != INDEX} | {"overview.html", "changelog.html"}
    assert (site / "repository" / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
    assert "repository/LICENSE" in (site / "licences.html").read_text()
    assert 'href="overview.html#presets"' in (site / "parameters.html").read_text()
    assert not list(site.rglob("make_*.py"))


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    for file in ("mkdocs.yml", "README.md", "CHANGELOG.md", "docs/site_files.py", "docs/site.css"):
        (tmp_path / file).write_bytes((REPOSITORY / file).read_bytes())
    (tmp_path / "docs" / "README.md").write_text("# Index\n\n[gone](../benchmarks/no_such_file.json)\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and "no_such_file.json" in done.stderr


def test_no_page_fetches_anything_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        assert not [tag for tag in tags if re.search(r"\b(src|href)=[\"']?(https?:|//)", tag)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:|//)", sheet.read_text()), sheet.name


def test_markdown_of_github_is_read_as_such(site):
    """Lists that follow a paragraph without an empty line, tables and fences that are not recognized."""
    for page in site.glob("*.html"):
        article = page.read_text().partition("<article")[2].partition("</article")[0]
        assert not re.search(r"<p>[^<]*(\n[-*] |\|---|```)", article), page.name


def test_pages_fit_wide_and_narrow_screens_in_a_browser(site):
    with chromium() as browser:
        for name in ("index", "glossary", "tumors", "kernels", "first_training"):
            check_page(browser, site / f"{name}.html")
