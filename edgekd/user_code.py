"""Code of the user's, reached only through a name that the user wrote: package.module:callable."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.errors import BadInput, EdgekdError


def load_callable(spec: str, error: type[BadInput]) -> Callable[..., Any]:
    """The callable that ``package.module:name`` names; the current folder is importable.

    Raises:
        error: it cannot be imported, or is not callable.
    """
    module_name, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise error("this names no callable", where=spec, remedy="write package.module:callable")
    make_folder_importable()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as cause:
        if cause.name is None or not f"{module_name}.".startswith(f"{cause.name}."):
            raise error(
                f"importing {module_name} needs {cause.name!r}, which is missing", where=spec, remedy="install it"
            ) from cause
        raise error(f"there is no module {module_name!r}", where=spec, remedy="check its name and the folder") from None
    except (Exception, SystemExit) as cause:
        raise error(
            f"importing {module_name} failed: {type(cause).__name__}: {cause}",
            where=spec,
            remedy="mend the module; --debug shows where it failed",
        ) from cause
    found = getattr(module, name, None)
    if not callable(found):
        raise error(f"{module_name} has no callable {name!r}", where=spec, remedy="write package.module:callable")
    return found


def call(spec: str, error: type[BadInput], **arguments: Any) -> Any:
    """What the callable that ``spec`` names returns for ``arguments``.

    Raises:
        error: it cannot be imported, or fails.
    """
    function = load_callable(spec, error)
    try:
        return function(**arguments)
    except EdgekdError:
        raise
    except (Exception, SystemExit) as cause:
        raise error(
            f"your code failed: {type(cause).__name__}: {cause}", where=spec, remedy="mend it; --debug shows where"
        ) from cause


def make_folder_importable() -> None:
    """Put the current folder on the path for good: the user's module may import its neighbours later."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
