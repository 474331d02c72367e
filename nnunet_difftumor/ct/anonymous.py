"""Names for scans whose files are named after patients, and scans without the free text of their headers."""

import hashlib
from dataclasses import replace
from pathlib import Path

from nnunet_difftumor.ct.scan import Scan
from nnunet_difftumor.errors import InputError

# What stands in records instead of the name of a file.
UNNAMED = "anonymous"
_TEXTS = ("descrip", "aux_file", "db_name", "intent_name")


def anonymous_name(path: Path) -> str:
    """A name made of a file's content: `case_` and 12 digits of its SHA-256.

    It stays the same when other scans are added or withdrawn. Whoever has the file can find out that it is meant.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return f"case_{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an existing file") from error


def without_text(scan: Scan) -> Scan:
    """The scan without the header's free text and extensions."""
    header = scan.header.copy()
    for field in _TEXTS:
        header[field] = b""
    header.extensions.clear()
    return replace(scan, header=header)
