"""How the temperature moves over the epochs."""

from __future__ import annotations

import math

from edgekd.recipe import Temperature


def temperature_at(config: float | Temperature, epoch: int, epochs: int) -> float:
    """The temperature of ``epoch`` (from 0) of ``epochs``: a ``start``, reached ``end`` in the last epoch.

    A constant schedule stays at ``start``; a cosine one moves slowly at both ends.
    """
    if not isinstance(config, Temperature):
        return float(config)
    way = epoch / (epochs - 1) if epochs > 1 else 0.0
    if config.schedule == "constant":
        way = 0.0
    elif config.schedule == "cosine":
        way = (1 - math.cos(math.pi * way)) / 2
    return config.start + (config.end - config.start) * way
