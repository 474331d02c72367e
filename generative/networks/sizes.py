"""Limits for the sizes of networks, which files of weights name."""

from collections.abc import Mapping
from typing import Any

from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.json_checks import is_integer

# Of the elements of a size that is several, such as the multipliers of each level.
_MOST_ELEMENTS = 8


def check_sizes(config: Any, limits: Mapping[str, int]) -> None:
    """Refuses sizes of a network beyond what anybody trains.

    Args:
        config: a dataclass of sizes, such as AutoencoderConfig.
        limits: the greatest value of a field, or of each of its elements.

    Raises:
        InputError: names the size.
    """
    for name, most in limits.items():
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        if len(values) > _MOST_ELEMENTS or not all(is_integer(one) and 1 <= one <= most for one in values):
            raise InputError(f"{name} is {shown(value)}, expected whole numbers from 1 to {most}")
