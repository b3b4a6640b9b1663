"""Models under paths of equal length: how long a path is moves what lies behind it in memory, and with it the speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .spec import ModelSpec, absolute

# Names of the sides, equally long too: a spec travels to its process with its label.
LABELS = tuple("abcdefghijklmnopqrstuvwxyz")


def equal_paths(specs: Sequence[ModelSpec], folder: Path) -> list[ModelSpec]:
    """The same models, each reached through links in ``folder`` whose paths are all equally long; labels in `LABELS`.

    Folders are linked and not files, since a model finds its weights beside itself. Nothing is copied.

    Raises:
        OSError: the file system has no symbolic links, or a name would be too long.
    """
    files = [[spec.path, spec.feeds, *([spec.golden] if spec.golden else [])] for spec in specs]
    longest = max(len(path.name) for row in files for path in row)
    staged = []
    for label, spec in zip(LABELS, specs, strict=False):

        def link(kind: str, path: Path, label: str = label) -> Path:
            # kind, side, and as many letters as the file's own name lacks.
            place = absolute(folder) / f"{kind}{label}{'-' * (longest - len(path.name))}"
            place.symlink_to(absolute(path).parent, target_is_directory=True)
            return place / path.name

        staged.append(
            replace(
                spec,
                path=link("m", spec.path),
                feeds=link("f", spec.feeds),
                golden=link("g", spec.golden) if spec.golden else None,
                label=label,
            )
        )
    return staged
