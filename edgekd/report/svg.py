"""The parts that the charts are drawn of; colours come from the page's style sheet by class, every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup


def picture(
    width: float, height: float, told: str, parts: Sequence[Markup], *, css: str = "chart", stretch: bool = False
) -> Markup:
    """A whole drawing of that size in pixels; ``told`` is what a screen reader says."""
    ratio = Markup(' preserveAspectRatio="none"') if stretch else Markup("")
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        css, short(width), short(height), told, ratio, Markup("").join(parts)
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A line; ``css`` is its class."""
    places = tuple(short(value) for value in (x1, y1, x2, y2))
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(css, *places)


def rect(x: float, y: float, width: float, height: float, css: str) -> Markup:
    """A rectangle."""
    places = tuple(short(value) for value in (x, y, width, height))
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(css, *places)


def dot(x: float, y: float, radius: float, css: str) -> Markup:
    """A filled circle."""
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"/>').format(css, short(x), short(y), short(radius))


def text(x: float, y: float, content: str, css: str, anchor: str) -> Markup:
    """A text on the line at ``y``; ``anchor``: start, middle or end."""
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        css, short(x), short(y), anchor, content
    )


def polyline(points: Sequence[tuple[float, float]], css: str) -> Markup:
    """A line through points."""
    path = " ".join(f"{short(x)},{short(y)}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(css, path)


def short(value: float) -> str:
    """A coordinate as short as it may be."""
    return f"{value:.1f}".removesuffix(".0")
