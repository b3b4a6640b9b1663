"""Whether the figures of a bundle meet the recipe's budget."""

from __future__ import annotations

from typing import Any

from edgekd.recipe import Budget

# 100 * (0.98 - 0.97) is not 1: a figure of just the limit is within it.
ROUNDING = 1e-9


def judge(budget: Budget, entry: dict[str, Any]) -> dict[str, Any]:
    """``met`` True or False, or None where nothing is missed but a figure was not measured; what is ``missed``."""
    latency, accuracy = entry["latency_ms"] or {}, entry["accuracy"]
    figures = {
        "max_accuracy_drop": (accuracy["drop_points"], "points of accuracy lost"),
        "p90_ms": (latency.get("p90"), "ms at the 90th percentile"),
        "peak_memory_mb": (entry["peak_memory_mb"], "MB of memory"),
        "size_mb": (entry["size_bytes"] / 1e6, "MB of file"),
    }
    missed, unknown = [], []
    for key, (figure, unit) in figures.items():
        limit = getattr(budget, key)
        if limit is None:
            continue
        if figure is None:
            unknown.append(key)
        elif figure > limit + ROUNDING:
            missed.append(f"{key}: {figure:.3g} {unit}, {limit:g} allowed")
    return {"met": False if missed else None if unknown else True, "missed": missed, "not_measured": unknown}
