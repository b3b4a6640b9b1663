"""How a line of a report reads: good, bad, or not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "bad", "unknown"]
SIGNS: dict[str, str] = {"good": "✓", "bad": "✕", "unknown": "!"}


@dataclass(frozen=True)
class Verdict:
    """One line: ``head`` is the verdict, ``detail`` what it rests on."""

    state: State
    head: str
    detail: str
