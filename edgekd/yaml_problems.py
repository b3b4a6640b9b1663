"""What pydantic found wrong, in the words of one who wrote YAML."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

KeyPath = tuple[str | int, ...]

# pydantic speaks of Python's types.
WORDS = {
    "missing": "this key is needed",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "string_type": "should be text",
    "finite_number": "should be a finite number",
    "too_short": "should hold more",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where in the value, what, and what to do."""

    at: KeyPath
    what: str
    remedy: str = ""


def nearest(name: str, known: list[str]) -> str:
    """A sentence that names the nearest of the known names, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def tell(model: type[BaseModel], value: Any, error: ValidationError) -> list[Problem]:
    """The problems of a validation in order; the alternatives of a union are one problem."""
    found: dict[KeyPath, list[Any]] = {}
    hollow = set()
    for problem in error.errors(include_url=False):
        at, in_union = _key_path(value, problem)
        found.setdefault(at, []).append(problem)
        if in_union or problem["type"] == "too_short":
            hollow.add(at)
    # Where problems lie deeper, it says nothing that another branch of the union wants no mapping, or that a list is
    # too short without its wrong items.
    hollow = {at for at in hollow if any(len(deep) > len(at) and deep[: len(at)] == at for deep in found)}
    return [_problem(model, at, rows) for at, rows in found.items() if at not in hollow]


def _problem(model: type[BaseModel], at: KeyPath, rows: list[Any]) -> Problem:
    key = ".".join(map(str, at))
    if all(row["type"] == "extra_forbidden" for row in rows):
        return Problem(at, f"unknown key {key!r}", nearest(str(at[-1]), _known_keys(model, at[:-1])))
    # In a union, that the key is unknown to one branch does not matter.
    rows = [row for row in rows if row["type"] != "extra_forbidden"]
    said = [WORDS.get(row["type"]) or row["msg"].removeprefix("Value error, ") for row in rows]
    said = [text.removeprefix("Input ") for text in said]
    given = rows[0].get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    shown = shown or (" (it is empty)" if given is None else "")
    text = " or ".join(dict.fromkeys(said)) + shown
    quote = "put it in quotes" if rows[0]["type"] == "string_type" and shown else ""
    return Problem(at, f"{key}: {text}" if key else text, quote)


def _key_path(value: Any, problem: Any) -> tuple[KeyPath, bool]:
    """The problem's place in the value, and whether it lies in a branch of a union.

    pydantic puts the name of the branch into its location; keys are what the value has.
    """
    at: list[str | int] = []
    in_union = False
    last = len(problem["loc"]) - 1
    for index, part in enumerate(problem["loc"]):
        is_key = isinstance(value, dict) and part in value
        if is_key or (isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)):
            value = value[part]
        elif index < last or problem["type"] != "missing":
            in_union = True
            continue
        at.append(part)
    return tuple(at), in_union


def _known_keys(model: type[BaseModel], at: KeyPath) -> list[str]:
    """Keys of the model that sits at a key path, through unions and lists."""
    current: list[type[BaseModel]] = [model]
    for part in at:
        if isinstance(part, int):
            continue
        fields = [m.model_fields[part] for m in current if part in m.model_fields]
        current = [inner for field in fields for inner in _models_in(field.annotation)]
    return sorted({name for m in current for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
