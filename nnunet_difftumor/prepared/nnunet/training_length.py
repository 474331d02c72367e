"""The length of a training, where plans say it instead of the trainer: in experiments all trainings are as long."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.json_checks import is_integer

# In the plans: {"epochs": 10, "iterations_per_epoch": 80}. nnU-Net ignores it and saves it with the run.
TRAINING_KEY = "difftumor_training"


@dataclass(frozen=True)
class TrainingLength:
    """How long a training is.

    Attributes:
        epochs, iterations_per_epoch: at least 1.
    """

    epochs: int
    iterations_per_epoch: int

    def to_plans(self) -> dict[str, dict[str, int]]:
        """What plans get."""
        return {TRAINING_KEY: asdict(self)}

    @classmethod
    def of(cls, plans: Mapping[str, Any]) -> "TrainingLength | None":
        """What plans say; None: nothing.

        Raises:
            InputError: if it is no length.
        """
        said = plans.get(TRAINING_KEY)
        if said is None:
            return None
        keys = {"epochs", "iterations_per_epoch"}
        if not isinstance(said, dict) or set(said) != keys or not all(is_integer(n) and n >= 1 for n in said.values()):
            raise InputError(
                f"plans {plans.get('plans_name')}: {TRAINING_KEY} is {shown(said)}, expected epochs and "
                "iterations_per_epoch, whole numbers of at least 1"
            )
        return cls(**said)
