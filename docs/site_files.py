"""A hook of mkdocs.yml: files of the repository outside of docs/ that pages link become files of the site.

README.md and CHANGELOG.md are pages of it, all others are copied as they are. So every link of a page works on GitHub,
in a clone, and in a site that is copied to any place.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = "docs"
PAGES = {"README.md": "overview.md", "CHANGELOG.md": "changelog.md"}
COPIES = "repository"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and the files that pages link."""
    texts = {f"{DOCS}/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    texts |= {page: (REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES}
    for source, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(REPOSITORY / source)))
    linked = {_in_repository(link, source) for source, text in texts.items() for link in LINK.findall(text)}
    for path in sorted(linked):
        if not path.startswith(f"{DOCS}/") and path not in PAGES and (REPOSITORY / path).is_file():
            files.append(File.generated(config, _place(path), abs_src_path=str(REPOSITORY / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page, from the places in the repository to those in the site."""
    sources = {place: source for source, place in PAGES.items()}
    source = sources.get(page.file.src_uri, f"{DOCS}/{page.file.src_uri}")
    folder = str(PurePosixPath(page.file.src_uri).parent)
    return LINK.sub(lambda link: relpath(_place(_in_repository(link[1], source)), folder), markdown)


def _in_repository(link: str, source: str) -> str:
    """Path of a link's target, from the root of the repository."""
    return normpath(str(PurePosixPath(source).parent / link))


def _place(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path.startswith(f"{DOCS}/"):
        return path.removeprefix(f"{DOCS}/")
    return PAGES.get(path, f"{COPIES}/{path}")
