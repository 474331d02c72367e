"""Names for scans whose files are named after patients, and scans without the free text of their headers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nnunet_difftumor.ct.dicom.study import files_of_study, sha256_of_content
from nnunet_difftumor.ct.scan import Scan

# What stands in records instead of the name of a file.
UNNAMED = "anonymous"
_TEXTS = ("descrip", "aux_file", "db_name", "intent_name")


def anonymous_name(path: Path) -> str:
    """A name made of the content of a scan's file, or folder of DICOM: `case_` and 12 digits of its SHA-256.

    It stays the same when other scans are added or withdrawn. Whoever has the file can find out that it is meant.

    Raises:
        InputError: it cannot be read.
    """
    return f"case_{sha256_of_content(path)[:12]}"


def without_paths(text: str, names: Mapping[Path, str]) -> str:
    """A message in which paths are called otherwise; longer ones go first, since they may begin with shorter ones."""
    for path in sorted(names, key=lambda path: -len(str(path))):
        text = text.replace(str(path), names[path])
    return text


def without_text(scan: Scan) -> Scan:
    """The scan without the header's free text and extensions, and without names of files in its note."""
    header = scan.header.copy()
    for field in _TEXTS:
        header[field] = b""
    header.extensions.clear()
    note = scan.note
    if note and scan.path is not None and scan.path.is_dir():
        slices = files_of_study(scan.path)
        names = {path.parent: "a folder" for path in slices} | dict.fromkeys(slices, "a slice")
        note = without_paths(note, names | {scan.path: "the folder of the scan"})
    return replace(scan, header=header, note=note)
