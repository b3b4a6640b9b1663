"""What version of a runtime a bundle needs: the part of PEP 440 that targets use, without the packaging library."""

from __future__ import annotations

import operator
import re
from typing import NamedTuple

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9_-]*)\s*(.*)")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")


class Requirement(NamedTuple):
    """A package and the clauses, (operator, version), that its version must meet all."""

    name: str
    clauses: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read ``name>=1.2,<3``. Raises ValueError for anything else, wildcards and ``~=`` included."""
        found = _REQUIREMENT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a requirement such as onnxruntime>=1.20")
        clauses = []
        for part in found[2].split(",") if found[2].strip() else []:
            clause = _CLAUSE.fullmatch(part)
            if clause is None:
                raise ValueError(f"{part.strip()!r} in {text!r} is not understood; use >=, <=, ==, !=, > and <")
            clauses.append((clause[1], clause[2]))
        return cls(found[1], tuple(clauses))

    def allows(self, version: str) -> bool:
        """Whether an installed version meets every clause; only its release numbers count (10.3.0.post1 is 10.3)."""
        return all(_COMPARE[sign](*_aligned(version, wanted)) for sign, wanted in self.clauses)


def _aligned(one: str, other: str) -> tuple[list[int], list[int]]:
    """Release numbers of both, padded with zeros to one length."""
    found = []
    for text in (one, other):
        numbers = re.match(r"\d+(?:\.\d+)*", text)
        if numbers is None:
            raise ValueError(f"{text!r} is not a version")
        found.append([int(part) for part in numbers[0].split(".")])
    length = max(map(len, found))
    return found[0] + [0] * (length - len(found[0])), found[1] + [0] * (length - len(found[1]))
