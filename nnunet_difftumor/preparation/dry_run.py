"""What `prepare` would make of raw cases, as headers and records show it: nothing is written."""

from collections.abc import Callable, Mapping
from pathlib import Path

from nnunet_difftumor.ct.images import stored_shape
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import free_bytes, in_words_of_bytes
from nnunet_difftumor.preparation.preprocessing.preprocessed_cases import PreprocessedCases, in_words
from nnunet_difftumor.prepared.made_from.raw_files import RawFiles


def foretell_cases(
    what: str, cases: Mapping[str, RawFiles], made: PreprocessedCases | None, *, report: Callable[[str], None]
) -> None:
    """Says which cases would be preprocessed and which removed, and looks at the headers of the former.

    Args:
        what: the cases are, for the lines.
        cases: by name.
        made: those that are preprocessed already; None: all would be made.
        report: gets a line per case, or a line for many.

    Raises:
        InputError: cases cannot be preprocessed.
    """
    changes = dict.fromkeys(cases, "new") if made is None else made.changes(cases, read=False)
    withdrawn = [] if made is None else sorted(made.names() - set(cases))
    report(f"{what}: {len(changes)} of {len(cases)} cases would be preprocessed")
    for line in in_words({name: reason for name, reason in changes.items() if reason != "new"}):
        report(f"      {line}")
    for name in withdrawn:
        report(f"      {name}: withdrawn; would be removed")
    wrong = []
    for name in changes:
        try:
            _check_headers(cases[name])
        except InputError as error:
            wrong.append(error)
            report(f"      {name}: {error}")
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise InputError(f"{len(wrong)} cases cannot be preprocessed, see above; fix or remove them")


def foretell_room(cases: Mapping[str, RawFiles], folder: Path) -> str:
    """How much is read, and how much may be written where."""
    read = sum(path.stat().st_size for files in cases.values() for path in files.all)
    return f"raw files have {in_words_of_bytes(read)}, {in_words_of_bytes(free_bytes(folder))} are free for {folder}"


def _check_headers(files: RawFiles) -> None:
    """nnU-Net reads no file without a header that can be read, and takes no label map of another shape."""
    shapes = {path: stored_shape(path) for path in files.all}
    expected = shapes[files.images[0]]
    for path, shape in shapes.items():
        if None not in (shape, expected) and shape != expected:
            raise InputError(
                f"{path}: {shape} voxels (x, y, z), but {files.images[0]} has {expected}; nnU-Net's check would refuse "
                "the case: bring both onto one grid"
            )
