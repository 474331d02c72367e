"""A challenge's scores as a table for the terminal."""

from collections.abc import Mapping
from typing import Any


def challenge_table(result: Mapping[str, Any]) -> str:
    """Every score over all cases with its definition; `-` stands for nothing to measure.

    Args:
        result: of `Challenge.result`.
    """
    width = max(map(len, result["definition"])) + 2
    lines = [
        f"{result['title']}, {len(result['cases'])} cases, as defined by {result['source']}; T: truth, P: prediction"
    ]
    for name, definition in result["definition"].items():
        value = result["overall"][name]
        lines.append(f"{name:<{width}}{'-' if value is None else f'{value:.3f}':>9}  {definition}")
    return "\n".join([*lines, *([result["remark"]] if result["remark"] else [])])
