"""How a model's latency went from run to run, made of the documents of many gates."""

from edgekd.report.history.html import render_history
from edgekd.report.history.series import Series, collect

__all__ = ["Series", "collect", "render_history"]
