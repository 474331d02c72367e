"""What the JSON beside weights may say: everything in it decides how much memory is taken, or what is drawn where."""

import re
from collections.abc import Mapping
from typing import Any

from nnunet_difftumor.generative.weights_folder import check_stage
from nnunet_difftumor.json_checks import Checker, is_integer, is_number
from nnunet_difftumor.names import check_plain_name

SAMPLERS = ("ddpm", "ddim")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AXES = (frozenset("SI"), frozenset("RL"), frozenset("AP"))


def check_description(content: Mapping[str, Any], *, where: str) -> None:
    """Checks the values of a description; whether its keys are known is not looked at.

    Args:
        content: of the JSON file.
        where: its path, for messages.

    Raises:
        InputError: names the key, what was seen and what was expected.
        KeyError, TypeError: if a part is missing, or is no object.
    """
    check = Checker(content, where)
    check.value("kind", lambda v: isinstance(v, str), "text")
    check.value("network", lambda v: v is None or isinstance(v, str), "null or text")
    check.value("sha256", _is_sha256, "a SHA-256 in 64 hexadecimal digits")
    check.value("source", lambda v: isinstance(v, dict), "an object")
    check.value("architecture", lambda v: isinstance(v, dict), "an object")
    check.value("codebook_range", lambda v: v is None or _is_interval(v, 1e6), "null, or two numbers, the lower first")
    check = Checker(content["volumes"], f"{where}: volumes")
    check.value("window_hu", lambda v: _is_interval(v, 1e5), "two numbers, the lower first")
    check.value(
        "spacing_mm", lambda v: _are(v, 3, lambda mm: is_number(mm) and 0.01 <= mm <= 100), "three from 0.01 to 100"
    )
    check.value("axes", _are_axes, "three letters, one each of S or I, R or L, A or P")
    if content["diffusion"] is not None:
        _check_diffusion(content["diffusion"], where)


def _check_diffusion(settings: Mapping[str, Any], where: str) -> None:
    # Both become the name of a file.
    check_plain_name(settings["organ"], where=f"{where}: organ")
    check_stage(settings["stage"], where=f"{where}: stage")
    check, steps = Checker(settings, f"{where}: diffusion"), settings["steps"]
    check.value("steps", lambda v: is_integer(v) and 1 <= v <= 10_000, "a whole number from 1 to 10000")
    check.value("sampler", lambda v: v in SAMPLERS, f"one of {', '.join(SAMPLERS)}")
    check.value(
        "sampler_steps",
        lambda v: is_integer(v) and 1 <= v <= steps and steps % v == 0,
        f"a whole number that divides the {steps} steps of the schedule",
    )
    check.value("codebook_sha256", _is_sha256, "a SHA-256 in 64 hexadecimal digits")
    check.value(
        "patch_size",
        lambda v: _are(v, 3, lambda size: is_integer(size) and 1 <= size <= 512),
        "three whole numbers from 1 to 512",
    )


def _are(values: Any, length: int, good) -> bool:
    return isinstance(values, list) and len(values) == length and all(map(good, values))


def _is_interval(values: Any, most: float) -> bool:
    return _are(values, 2, lambda value: is_number(value) and abs(value) <= most) and values[0] < values[1]


def _are_axes(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 3 and all(len(pair & set(value)) == 1 for pair in _AXES)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
