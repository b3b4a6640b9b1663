"""Values out of JSON that others wrote: any key may be missing, null or of another type than expected."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

# Longest text shown whole; names beyond it lose their middle.
LONGEST = 240


def mapping(value: Any) -> dict[str, Any]:
    """``value`` when it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """``value`` when it is a JSON array, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def rows(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of an array."""
    return [row for row in items(value) if isinstance(row, dict)]


def number(value: Any) -> float | None:
    """A finite number, else None; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def share(value: Any) -> float | None:
    """A number in [0, 1], as metrics are, else None."""
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def pair(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, else None."""
    found = [number(one) for one in items(value)]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def flag(value: Any) -> bool | None:
    """A bool, else None."""
    return value if isinstance(value, bool) else None


def text(value: Any, limit: int = LONGEST) -> str:
    """One line of plain text, at most ``limit`` characters; null, and what is no scalar, is empty.

    Control characters (a terminal obeys them) and those that turn the writing direction are left out.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if number(value) is not None else ""
    if not isinstance(value, str):
        return ""
    line = " ".join(value.split())
    clean = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    if len(clean) <= limit:
        return clean
    return f"{clean[: limit // 2]}…{clean[len(clean) - (limit - limit // 2 - 1) :]}"
