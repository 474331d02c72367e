"""Names of cases that nnU-Net or a file system would lose."""

import re
import unicodedata
from collections.abc import Collection


def unusable_names(names: Collection[str]) -> dict[str, str]:
    """Which names cannot be kept, and why; of names that differ by case or Unicode form only, all but the first.

    Args:
        names: of all cases of a dataset.
    """
    reasons, taken = {}, {}
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        if not re.fullmatch(r"\w[\w.-]*", unicodedata.normalize("NFC", name)):
            reasons[name] = f"{name!r} cannot be a case name; use letters, digits, '_', '-' and '.'"
        elif name.endswith("_seg"):
            reasons[name] = (
                f"{name!r}: nnU-Net takes preprocessed files that end in _seg for label maps and would lose the case; "
                "rename it"
            )
        elif name.endswith("_0000"):
            reasons[name] = f"{name!r}: _0000 is nnU-Net's ending of a case's first channel; leave it out of the name"
        elif key in taken:
            reasons[name] = (
                f"{name!r}: is {taken[key]!r} but for upper case or the Unicode form, which some file systems take for "
                "one name; rename one of them"
            )
        else:
            taken[key] = name
    return reasons
