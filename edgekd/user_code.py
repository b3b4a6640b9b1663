"""Code of the user's, reached only through a name that the user wrote: package.module:callable."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.errors import BadInput


def load_callable(spec: str, error: type[BadInput]) -> Callable[..., Any]:
    """The callable that ``package.module:name`` names; the current folder is importable.

    Raises:
        error: it cannot be imported, or is not callable.
    """
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as cause:
        if cause.name is None or not module_name.startswith(cause.name):
            raise
        raise error(f"there is no module {module_name!r}", where=spec, remedy="check its name and the folder") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise error(f"{module_name} has no callable {name!r}", where=spec, remedy="write package.module:callable")
    return found
