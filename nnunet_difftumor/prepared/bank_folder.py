"""The files of a lesion bank: what is there, what is missing, and how it is written."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import write_json, write_json_once
from nnunet_difftumor.json_checks import load_json
from nnunet_difftumor.synthesis.lesion_file import SUFFIX, write_lesion
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.volume import Volume

BANK_FILE = "bank.json"
REFUSED_SUFFIX = ".refused.json"


class BankFolder:
    """The files of a bank.

    Args:
        folder: of the bank.
        cases: the bases.
        per_case: lesions of each.
    """

    def __init__(self, folder: Path, cases: Sequence[str], per_case: int) -> None:
        self.folder, self._cases, self._per_case = folder, cases, per_case

    def claim(self, record: Mapping[str, Any]) -> None:
        """Writes `bank.json`, unless it is there; of several processes that begin at once, one does.

        Errors are those of `check` and `write`.
        """
        with self._writing():
            write_json_once(self.folder / BANK_FILE, record)
        self.check(record)

    def check(self, record: Mapping[str, Any]) -> None:
        """Compares the settings with those of the folder's bank, if it has one.

        Raises:
            InputError: if the folder holds a bank of other settings, or lesions of no bank.
        """
        path = self.folder / BANK_FILE
        if not path.exists():
            foreign = next(self.folder.glob(f"*/[!.]*{SUFFIX}"), None)
            # Asked again: whoever makes a bank at this moment writes it before the first lesion.
            if foreign is not None and not path.exists():
                raise InputError(f"{self.folder}: holds lesion files, but no {BANK_FILE}; choose another `output`")
            return
        try:
            found = load_json(path)
            if not isinstance(found, dict):
                raise ValueError("no object")
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: is damaged ({error}); choose another `output`, or delete the folder to start the bank again"
            ) from error
        if found.get("renderer") == "diffusion":
            # Before there were modes, all lesions were drawn exactly; whose models drew was said with their files only.
            earlier = {"weights_organs": recorded_weights_organs(found), "mode": "exact", "sampler_steps": None}
            found = earlier | found
        # As text: the order of size_weights changes what is drawn.
        differing = [key for key in {**record, **found} if json.dumps(record.get(key)) != json.dumps(found.get(key))]
        if differing:
            raise InputError(
                f"{self.folder}: holds a bank made with other settings ({', '.join(differing)}; see {BANK_FILE}); "
                "choose another `output`, or delete the folder to start the bank again"
            )

    def missing(self, *, without: Collection[str] = ()) -> list[tuple[str, int]]:
        """Case and number of what is neither made nor refused.

        Args:
            without: cases that are taken for empty.
        """
        # One listing per case: on network file systems much quicker than a question per file.
        there = {case: set() if case in without else self._names(case) for case in self._cases}
        return [
            (case, number)
            for case in self._cases
            for number in range(self._per_case)
            if there[case].isdisjoint(_names_of(number))
        ]

    def forget(self, case: str) -> None:
        """Removes all lesions of a case, and the notes that there was no room. Errors are those of `write`."""
        with self._writing():
            for name in self._names(case):
                if name.endswith((SUFFIX, REFUSED_SUFFIX)):
                    (self.folder / case / name).unlink(missing_ok=True)

    def has(self, case: str, number: int) -> bool:
        """Whether a lesion is made or refused by now."""
        return any((self.folder / case / name).exists() for name in _names_of(number))

    def write(self, case: str, number: int, tumor: RenderedTumor, scan: Volume) -> None:
        """Writes a lesion that was rendered into a scan.

        Raises:
            InputError: if the disk is full, or the folder cannot be written.
        """
        with self._writing():
            write_lesion(self.folder / case / _names_of(number)[0], tumor, scan)

    def write_refused(self, case: str, number: int, reasons: Sequence[str]) -> None:
        """Notes that there is no room for a lesion. Errors are those of `write`."""
        with self._writing():
            content = {"case": case, "number": number, "reasons": list(reasons)}
            write_json(self.folder / case / _names_of(number)[1], content)

    def count_refused(self, *, without: Collection[str] = ()) -> int:
        """How many lesions there is no room for.

        Args:
            without: cases that are taken for empty.
        """
        refused = {_names_of(number)[1] for number in range(self._per_case)}
        return sum(len(self._names(case) & refused) for case in self._cases if case not in without)

    def _names(self, case: str) -> set[str]:
        folder = self.folder / case
        return set(os.listdir(folder)) if folder.is_dir() else set()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror or error}); free disk space, or fix what "
                "it says, and the same command resumes where it stopped"
            ) from error


def recorded_weights_organs(record: Mapping[str, Any]) -> dict[str, str]:
    """Whose diffusion models drew in each organ, by the files that `bank.json` records; empty if none did.

    Raises:
        AttributeError, TypeError: for a record of another form.
    """
    weights = record.get("weights", {})
    return {organ: file["organ"] for organ, files in weights.items() for file in files if "organ" in file}


def _names_of(number: int) -> tuple[str, str]:
    """File names of a lesion, and of the note that there was no room for it."""
    return f"{number:05d}{SUFFIX}", f"{number:05d}{REFUSED_SUFFIX}"
