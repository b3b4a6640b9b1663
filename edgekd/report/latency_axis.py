"""The axis that distributions of latencies are drawn on, and their bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from edgekd.report import svg
from edgekd.report.wording import count, joined, milliseconds

# Pixels of a chart: about a phone's.
WIDTH = 360
BINS = 60
# Times the fastest run beyond which the axis of latencies becomes logarithmic.
LONG_TAIL = 3.0


@dataclass(frozen=True)
class LatencyAxis:
    """Milliseconds from ``low`` to ``high`` along the whole width of a chart."""

    low: float
    high: float
    logarithmic: bool
    left: float = 2.0
    right: float = WIDTH - 2.0

    def x(self, value: float) -> float:
        """Where a latency stands."""
        low, high = self.low, self.high
        part = math.log(value / low) / math.log(high / low) if self.logarithmic else (value - low) / (high - low)
        return self.left + (self.right - self.left) * part

    def mark(self, value: float, label: str, y: float, bottom: float) -> list[Markup]:
        """A line at ``value`` from its label at ``y`` down to ``bottom``."""
        x = self.x(value)
        anchor = "end" if x > WIDTH * 0.55 else "start"
        return [
            svg.line(x, y - 9, x, bottom, "mark"),
            svg.text(x + (-5 if anchor == "end" else 5), y, label, "value", anchor),
        ]

    def ends(self, y: float) -> list[Markup]:
        """The latencies at both ends."""
        ends = ((self.left, self.low, "start"), (self.right, self.high, "end"))
        return [svg.text(place, y, milliseconds(value), "tick", anchor) for place, value, anchor in ends]

    def note(self, values: np.ndarray, of: str = "runs") -> str:
        """What a reader must know of it: its scale, and how many of ``values`` lie beyond."""
        beyond, total = int((values > self.high).sum()), count(len(values))
        kind = f"The axis is {'logarithmic' if self.logarithmic else 'cut'}" if self.logarithmic or beyond else ""
        slowest = milliseconds(float(values.max()))
        outside = f"{count(beyond)} of {total} {of} are beyond it, the slowest took {slowest}" if beyond else ""
        return joined(kind, outside, by="; ")


def latencies(samples_ms: Sequence[float]) -> np.ndarray:
    """Those that a clock can have given."""
    values = np.asarray(samples_ms, np.float64)
    return values[np.isfinite(values) & (values > 1e-9)]


def latency_axis(values: np.ndarray, marks: Sequence[float]) -> LatencyAxis | None:
    """An axis that shows 99 % of ``values`` and all ``marks``; None where there is nothing to draw."""
    if len(values) < 2:
        return None
    low, most = float(values.min()), float(values.max())
    high = 1.05 * max([float(np.quantile(values, 0.99)), *marks])
    high = min(max(high, low * 1.02), max(most, low * 1.02))
    if not high / low < 1e12:  # no clock gives such runs
        return None
    # A few slow runs would press all others into one bar.
    return LatencyAxis(low, high, logarithmic=high > LONG_TAIL * low)


def bars(
    values: np.ndarray, axis: LatencyAxis, top: float, bottom: float, *, bins: int = BINS, css: str = "bar"
) -> list[Markup]:
    """The histogram of what lies on the axis."""
    space = np.geomspace if axis.logarithmic else np.linspace
    edges = space(axis.low, axis.high, bins + 1)
    edges[0], edges[-1] = axis.low, axis.high
    heights, _ = np.histogram(values[values <= axis.high], bins=edges)
    tallest = max(int(heights.max()), 1)
    drawn = []
    for amount, begin, end in zip(heights, edges[:-1], edges[1:], strict=True):
        if amount:
            tall = max(1.0, (bottom - top) * int(amount) / tallest)
            wide = max(axis.x(end) - axis.x(begin) - 1, 0.6)
            drawn.append(svg.rect(axis.x(begin) + 0.5, bottom - tall, wide, tall, css))
    return drawn
