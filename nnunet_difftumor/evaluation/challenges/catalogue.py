"""The challenges by name."""

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.evaluation.challenges.challenge import Challenge
from nnunet_difftumor.evaluation.challenges.kits23 import KITS23
from nnunet_difftumor.evaluation.challenges.lits import LITS
from nnunet_difftumor.evaluation.challenges.msd import TASKS, msd_task
from nnunet_difftumor.evaluation.challenges.uls23 import ULS23

_FIXED = {challenge.name: challenge for challenge in (LITS, KITS23, ULS23)}
NAMES = ("lits", "kits23", *TASKS, "uls23")


def find_challenge(name: str | None, *, tolerance_mm: float | None) -> Challenge | None:
    """A challenge by its name; None without a name.

    Args:
        name: one of `NAMES`.
        tolerance_mm: of the normalized surface distance, for tasks of the decathlon only; the others have their own.

    Raises:
        InputError: there is no such challenge, or the tolerance is missing, unused or not above 0.
    """
    if tolerance_mm is not None and name not in TASKS:
        raise InputError(
            "`challenge_tolerance_mm` is for tasks of the decathlon (`challenge` msd-...) only; leave it out"
        )
    if tolerance_mm is not None and not 0 < tolerance_mm < float("inf"):
        raise InputError(f"`challenge_tolerance_mm`: expected more than 0 mm, got {tolerance_mm:g}")
    if name is None:
        return None
    if name not in NAMES:
        raise InputError(f"`challenge` is {name!r}, expected one of {', '.join(NAMES)}")
    return msd_task(name, tolerance_mm) if name in TASKS else _FIXED[name]
