"""Which of edgekd's two sizes is installed: the light one, or the one that builds."""

from __future__ import annotations

import re
from importlib import metadata

from edgekd.errors import missing_package


def build_packages() -> dict[str, str | None]:
    """The packages that the extra ``build`` brings, and the installed version of each (None: not installed)."""
    found = {}
    for line in metadata.requires("edgekd") or []:
        match = re.match(r"([A-Za-z0-9._-]+).*extra == ['\"]build['\"]", line)
        if match:
            found[match[1]] = _version(match[1])
    return found


def version() -> str:
    """Of edgekd itself."""
    return metadata.version("edgekd")


def require_build() -> None:
    """Nothing, where everything that trains and compiles is installed.

    Raises:
        Missing: with the install line.
    """
    lacking = [name for name, version in build_packages().items() if version is None]
    if lacking:
        raise missing_package(f"what builds ({', '.join(lacking)})", "build")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
