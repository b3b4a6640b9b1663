"""Numbers as a person reads them; a number that is not there is an empty text, never a guess."""

from __future__ import annotations

from edgekd.report.reading import pair, text

NOT_MEASURED = "not measured"
MINUS = "−"
# Between thousands, and between a number and its unit: no line breaks there.
SPACE = "\u00a0"
# Digits before the point that nobody reads any more, and hundreds of which would fill a page.
_HUGE = 1e15


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
    return "" if share is None else f"{_fixed(100 * share, decimals)}{SPACE}%"


def change(share: float | None, decimals: int = 2) -> str:
    """A change as signed per cent of what was before; from the elevenfold on as a factor."""
    if share is None:
        return ""
    if share >= 10:
        return f"×{SPACE}{significant(1 + share)}"
    return f"{_signed(100 * share, decimals)}{SPACE}%"


def change_interval(low: float, high: float) -> str:
    """``low to high`` of a change."""
    first, last = change(low), change(high)
    unit = f"{SPACE}%"
    return f"{first.removesuffix(unit) if last.endswith(unit) else first} to {last}"


def allowance(share: float) -> str:
    """A change that is allowed, with no more digits than it has."""
    return f"{100 * share:+.6g}{SPACE}%".replace("-", MINUS) if share < 10 else change(share)


def signed(value: float) -> str:
    """A round number of an axis that runs to both sides of 0."""
    return f"{value:+.6g}".replace("-", MINUS) if value else "0"


def points_change(value: float | None) -> str:
    """A change in signed points."""
    return "" if value is None else f"{_signed(value, 2)}{SPACE}points"


def _signed(value: float, decimals: int) -> str:
    # Rounded first: what is shown as zero has no sign.
    rounded = round(value, decimals)
    return _fixed(rounded, decimals, "+") if rounded else f"{0:.{decimals}f}"


def _fixed(value: float, decimals: int, sign: str = "-") -> str:
    """So many decimals, or a power of ten where the number is huge; ``sign``: "+" for a sign in any case."""
    form = f".{decimals}f" if abs(value) < _HUGE else ".2e"
    return f"{value:{sign}{form}}".replace("-", MINUS)


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


def duration(seconds: float | None) -> str:
    """A time as long as a person cares: 0.8 s, 45 s, 12 min, 3.5 h."""
    if seconds is None:
        return ""
    for limit, unit, in_seconds in ((99.5, "s", 1), (99.5 * 60, "min", 60)):
        if seconds < limit:
            return f"{significant(seconds / in_seconds, 2)}{SPACE}{unit}"
    return f"{significant(seconds / 3600, 2)}{SPACE}h"


def count(value: float | None) -> str:
    """A whole number, thousands apart."""
    if value is None:
        return ""
    if abs(value) >= _HUGE:
        return significant(value)
    return f"{value:,.0f}".replace(",", SPACE).replace("-", MINUS)


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
