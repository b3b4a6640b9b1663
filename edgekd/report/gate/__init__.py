"""Reports of a gate, each made of its document alone."""

from edgekd.report.gate.document import read_gate
from edgekd.report.gate.html import render_gate_html
from edgekd.report.gate.junit import render_junit
from edgekd.report.gate.markdown import render_gate_markdown
from edgekd.report.gate.terminal import gate_table

__all__ = ["gate_table", "read_gate", "render_gate_html", "render_gate_markdown", "render_junit"]
