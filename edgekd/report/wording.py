"""Numbers as a person reads them; a number that is not there is an empty text, never a guess."""

from __future__ import annotations

from edgekd.report.reading import pair, text

NOT_MEASURED = "not measured"
MINUS = "−"
# Between thousands, and between a number and its unit: no line breaks there.
SPACE = "\u00a0"


def significant(value: float | None, digits: int = 3) -> str:
    """``value`` with about ``digits`` significant digits, without an exponent for everyday sizes."""
    if value is None:
        return ""
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e7):
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    decimals = digits - 1
    while size >= 10 and decimals > 0:
        size, decimals = size / 10, decimals - 1
    if 0 < abs(value) < 1:
        while size < 1:
            size, decimals = size * 10, decimals + 1
    return f"{value:,.{decimals}f}".replace(",", SPACE).replace("-", MINUS)


def percent(share: float | None, decimals: int = 2) -> str:
    """A share in [0, 1] as per cent."""
    return "" if share is None else f"{100 * share:.{decimals}f}{SPACE}%".replace("-", MINUS)


def points(value: float | None) -> str:
    """Points of accuracy, signed only where negative."""
    if value is None:
        return ""
    # Rounded first: -0.001 points are 0.00, not −0.00.
    return f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def drop(value: float | None) -> str:
    """How far below the teacher, in words."""
    if value is None:
        return ""
    if round(value, 2) == 0:
        return "no points below the teacher"
    side = "below" if value > 0 else "above"
    return f"{points(abs(value))} points {side} the teacher"


def milliseconds(value: float | None) -> str:
    """Milliseconds with their unit."""
    return "" if value is None else f"{significant(value)}{SPACE}ms"


def megabytes(value: float | None) -> str:
    """Megabytes of 10^6 bytes with their unit."""
    return "" if value is None else f"{significant(value)}{SPACE}MB"


def size(count: float | None) -> str:
    """Bytes in the unit that fits, in powers of 1000."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count:.0f}{SPACE}bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5 or unit == "GB":
            break
    return f"{significant(count)}{SPACE}{unit}"


def count(value: float | None) -> str:
    """A whole number, thousands apart."""
    return "" if value is None else f"{value:,.0f}".replace(",", SPACE).replace("-", MINUS)


def interval(value: object, form: str = "ratio") -> str:
    """``low to high`` of a pair; ``form``: ratio or points."""
    found = pair(value)
    if found is None:
        return ""
    write = points if form == "points" else significant
    return f"{write(found[0])} to {write(found[1])}"


def shape(value: object) -> str:
    """A tensor's shape; N where it is dynamic."""
    if not isinstance(value, list | tuple):
        return ""
    return " × ".join("N" if one is None else text(one) for one in value) or "scalar"


def plural(amount: int, one: str, many: str = "") -> str:
    """``1 hop``, ``2 hops``."""
    return f"{count(amount)} {one if amount == 1 else many or one + 's'}"


def joined(*parts: str, by: str = ", ") -> str:
    """The parts that are not empty."""
    return by.join(part for part in parts if part)
