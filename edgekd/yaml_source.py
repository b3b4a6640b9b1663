"""YAML with line numbers: loading a mapping, and errors that name file, line, key and the nearest known key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgekd.errors import BadInput
from edgekd.yaml_problems import KeyPath, nearest, tell

__all__ = ["Places", "load_yaml", "nearest", "validate"]

ModelT = TypeVar("ModelT", bound=BaseModel)
# Key path -> where it stands, as a message shows it: "recipe.yaml:3", or "--set distill.epochs=x".
Places = dict[KeyPath, str]


def load_yaml(path: Path, error: type[BadInput]) -> tuple[dict[str, Any], Places]:
    """The mapping in a YAML file, and where each of its keys stands (file and line, from 1).

    Raises:
        error: unreadable, not YAML, not a mapping, a key that is no text, or one that stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error("there is no such file", where=str(path), remedy="check the path") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"cannot be read as text: {cause}", where=str(path), remedy="name a YAML file") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        places: Places = {}
        if isinstance(node, yaml.MappingNode):
            _collect(node, (), places, {}, path, error)
        value = yaml.safe_load(text)
    except yaml.YAMLError as cause:
        problem = getattr(cause, "problem", None) or getattr(cause, "reason", None) or cause
        raise error(f"is not YAML: {problem}", where=_where(path, text, cause), remedy="mend its syntax") from None
    except (ValueError, OverflowError) as cause:  # a date such as 2024-13-45
        raise error(f"holds a value that YAML cannot read: {cause}", where=str(path), remedy="quote it") from None
    except RecursionError:
        raise error("is nested too deeply", where=str(path), remedy="see: edgekd init") from None
    if not isinstance(value, dict):
        raise error("holds no mapping of keys to values", where=str(path), remedy="see: edgekd init")
    return value, places


def validate(
    model: type[ModelT], value: dict[str, Any], *, source: str, places: Places, error: type[BadInput]
) -> ModelT:
    """``value`` as ``model``; every problem is told with its place and key path, unknown keys with the nearest known.

    Raises:
        error: one message for all that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as cause:
        problems = tell(model, value, cause)
    first, *rest = [
        error(problem.what, where=_place(problem.at, places, source), remedy=problem.remedy) for problem in problems
    ]
    if rest:
        raise error("\n".join(one.render() for one in (first, *rest)))
    raise first


def _collect(
    node: yaml.Node, at: KeyPath, places: Places, seen: dict[int, bool], path: Path, error: type[BadInput]
) -> None:
    # An alias stands for a node that was gone through at its anchor; its value tells whether that has ended.
    if id(node) in seen:
        if not seen[id(node)]:
            where = f"{path}:{node.start_mark.line + 1}"
            raise error("a value holds itself", where=where, remedy="write it out in place of the alias")
        return
    seen[id(node)] = False
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            where = f"{path}:{key.start_mark.line + 1}"
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise error(f"the key {shown!r} is not text", where=where, remedy="put it in quotes")
            place = (*at, key.value)
            if place in places:
                raise error(
                    f"the key {'.'.join(map(str, place))!r} stands twice",
                    where=where,
                    remedy=f"remove one of them (the other is at {places[place]})",
                )
            places[place] = where
            _collect(child, place, places, seen, path, error)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            places[(*at, index)] = f"{path}:{child.start_mark.line + 1}"
            _collect(child, (*at, index), places, seen, path, error)
    seen[id(node)] = True


def _place(at: KeyPath, places: Places, source: str) -> str:
    """Where the longest known part of a key path stands."""
    return next((places[at[:n]] for n in range(len(at), 0, -1) if at[:n] in places), source)


def _where(path: Path, text: str, cause: yaml.YAMLError) -> str:
    mark, position = getattr(cause, "problem_mark", None), getattr(cause, "position", None)
    if mark is not None:
        return f"{path}:{mark.line + 1}"
    return f"{path}:{text.count(chr(10), 0, position) + 1}" if isinstance(position, int) else str(path)
