"""Random numbers that depend on (seed, purpose, number) alone, so that a resumed training draws the same."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *what: str | int) -> int:
    """A seed of 32 bits for one purpose."""
    text = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def generator(seed: int, *what: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *what))


def seed_globals(seed: int, *what: str | int) -> None:
    """Seed what dropout and users' own code draw from."""
    value = derive(seed, *what)
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Give the caller's global random states back at the end."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
