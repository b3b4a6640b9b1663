"""A bundle's manifest and measurements as HTML, Markdown and a terminal table."""

from edgekd.report.html import render_html
from edgekd.report.markdown import render_markdown
from edgekd.report.terminal import terminal_table

__all__ = ["render_html", "render_markdown", "terminal_table"]
