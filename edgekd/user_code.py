"""Code of the user's, reached only through a name that the user wrote: package.module:callable."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
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


def code_digest(spec: str) -> str:
    """SHA-256 over the code that ``package.module:name`` is part of, none of which is run; "absent" without a source.

    Of a package every Python file below its top folder counts, of a plain module those beside it: what it may import
    of the user's. What it needs of installed packages is not followed.
    """
    make_folder_importable()
    top = spec.partition(":")[0].partition(".")[0]
    try:
        found = importlib.util.find_spec(top) if top.isidentifier() else None
    except Exception:  # a finder of the user's own
        found = None
    if found is None:
        return "absent"  # told where the code is loaded
    if found.submodule_search_locations is not None:
        files = [(path, root) for root in map(Path, found.submodule_search_locations) for path in root.rglob("*.py")]
    elif found.has_location and found.origin is not None:
        root = Path(found.origin).parent
        files = [(path, root) for path in root.glob("*.py")]
    else:
        files = []
    whole = hashlib.sha256()
    for path, root in sorted(files):
        try:
            text = path.read_bytes()
        except OSError:  # told where it is imported, if it is
            continue
        whole.update(f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(text).digest())
    return whole.hexdigest() if files else "absent"


def make_folder_importable() -> None:
    """Put the current folder on the path for good: the user's module may import its neighbours later."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
