"""YAML with line numbers: loading a mapping, and errors that name file, line, key and the nearest known key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgekd.errors import BadInput

ModelT = TypeVar("ModelT", bound=BaseModel)
Lines = dict[tuple[str | int, ...], int]


def load_yaml(path: Path, error: type[BadInput]) -> tuple[dict[str, Any], Lines]:
    """The mapping in a YAML file, and the line (from 1) of each of its keys by key path.

    Raises:
        error: unreadable, not YAML, not a mapping, or a key that stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error("there is no such file", where=str(path), remedy="check the path") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"cannot be read as text: {cause}", where=str(path)) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise error(f"is not YAML: {getattr(cause, 'problem', cause)}", where=where, remedy="mend its syntax") from None
    if not isinstance(value, dict) or node is None:
        raise error("holds no mapping of keys to values", where=str(path), remedy="see: edgekd init")
    lines: Lines = {}
    _collect(node, (), lines, path, error)
    return value, lines


def validate(model: type[ModelT], value: dict[str, Any], *, source: str, lines: Lines, error: type[BadInput]) -> ModelT:
    """``value`` as ``model``; every problem is told with file, line and key path, the first unknown key with its like.

    Raises:
        error: one message for all that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as cause:
        problems = cause.errors(include_url=False)
        told = [_tell(model, problem, source, lines) for problem in problems]
        head, remedy = told[0]
        rest = "".join(f"\n{more}" + (f"\n  {hint}" if hint else "") for more, hint in told[1:])
        raise error(head + (f"\n  {remedy}" if remedy else "") + rest) from None


def nearest(name: str, known: list[str]) -> str:
    """A sentence that names the nearest of the known names, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _collect(node: yaml.Node, at: tuple[str | int, ...], lines: Lines, path: Path, error: type[BadInput]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            place = (*at, str(key.value))
            if place in lines:
                raise error(
                    f"the key {'.'.join(map(str, place))!r} stands twice",
                    where=f"{path}:{key.start_mark.line + 1}",
                    remedy=f"remove one of them (the other is in line {lines[place]})",
                )
            lines[place] = key.start_mark.line + 1
            _collect(child, place, lines, path, error)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*at, index)] = child.start_mark.line + 1
            _collect(child, (*at, index), lines, path, error)


def _tell(model: type[BaseModel], problem: Any, source: str, lines: Lines) -> tuple[str, str]:
    at = tuple(problem["loc"])
    known_at = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in lines), ())
    where = f"{source}:{lines[known_at]}" if known_at else source
    key = ".".join(str(part) for part in at)
    if problem["type"] == "extra_forbidden":
        remedy = nearest(str(at[-1]), _known_keys(model, at[:-1]))
        return f"{where}: unknown key {key!r}", remedy
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {key}: {message}{shown}" if key else f"{where}: {message}", ""


def _known_keys(model: type[BaseModel], at: tuple[str | int, ...]) -> list[str]:
    """Keys of the model that sits at a key path, through unions and lists."""
    current: list[type[BaseModel]] = [model]
    for part in at:
        if isinstance(part, int):
            continue
        found = [m for m in current if part in m.model_fields]
        if found:
            current = [inner for m in found for inner in _models_in(m.model_fields[part].annotation)]
    return sorted({name for m in current for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
