"""The parts that Markdown reports are written of; whatever a text holds, it stays text."""

from __future__ import annotations

import re

from edgekd.report.tables import Table

# Whatever could begin markup inside a line, HTML and links included; CommonMark lets each be escaped.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
# GitHub and GitLab make links of bare addresses and notify whoever stands behind an @, escaped or not.
_LIVE = re.compile(r"(@|:(?=//)|\bwww(?=\.))", re.IGNORECASE)
_ZERO_WIDTH_SPACE = "\u200b"


def escape(value: str) -> str:
    """A text as Markdown shows it, whatever it holds; nobody is notified by it, and no address becomes a link."""
    return _LIVE.sub(rf"\1{_ZERO_WIDTH_SPACE}", _SPECIAL.sub(r"\\\1", value))


def table(content: Table) -> str:
    """A table with its cells escaped; empty without rows."""
    if not content.rows:
        return ""
    rule = ["---:" if index in content.numeric else "---" for index in range(len(content.columns))]
    lines = [
        [escape(column) for column in content.columns],
        rule,
        *([escape(cell) for cell in row] for row in content.rows),
    ]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{drawn}\n\n{content.left_out} more are in the bundle's JSON files." if content.left_out else drawn


def folded(summary: str, content: str) -> str:
    """Markdown that a click unfolds under ``summary``, a text of ours; empty without content."""
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>" if content else ""


def code(language: str, content: str) -> str:
    """A fence longer than any run of backticks inside; empty without content."""
    if not content:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"
