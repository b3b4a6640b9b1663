"""HTML pages that load nothing: inline style and SVG, no script, a policy that forbids the rest."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# Bytes of a page at most: it is mailed, and opened on phones.
LARGEST = 100_000


def render_page(template: str, **values: Any) -> str:
    """A template of this package, which extends `page.html.j2`, with every value escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("edgekd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
