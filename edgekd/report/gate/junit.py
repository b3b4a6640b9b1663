"""A gate as JUnit XML, which CI servers show beside the tests: one case a check.

The dialect that Jenkins, GitLab and GitHub's actions read alike (jenkinsci/xunit-plugin, junit-10.xsd): ``failure`` is
a verdict against the new bundle, ``error`` a model that failed, ``skipped`` a check that decided nothing.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from edgekd.gate_result import GateResult, compared_nothing
from edgekd.report.gate import told
from edgekd.report.gate.rows import Row, check_rows
from edgekd.report.gate.witnesses import disturbed_words
from edgekd.report.reading import text

_COUNTED = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
# XML 1.0, production 2: other characters may not stand in a document, not even as references.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(result: GateResult) -> str:
    """One ``testsuite``; its failures and errors are none exactly where the exit code is 0."""
    cases = [_case(row, result) for row in check_rows(result)]
    counts = {
        "tests": len(cases),
        **{name: sum(case.find(tag) is not None for case in cases) for name, tag in _COUNTED},
    }
    attributes = {name: str(value) for name, value in counts.items()} | {"time": _seconds(result.seconds)}
    suites = ElementTree.Element("testsuites", {"name": "edgekd bench", **attributes})
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        {
            "name": _clean(f"edgekd bench {told.subject(result)}"),
            **attributes,
            "timestamp": _clean(text(result.date, 40).removesuffix("+00:00")),
            "hostname": _clean(text(result.machine_name, 120)),
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(result):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    suite.extend(cases)
    lines = (
        told.summary(result),
        told.measured(result),
        told.width(result),
        told.built_with(result),
        disturbed_words(result),
    )
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(line for line in lines if line))
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _case(row: Row, result: GateResult) -> ElementTree.Element:
    """A check; what decides nothing is skipped, with the words for it."""
    seconds = result.seconds if row.check == "latency" else 0.0
    name = f"{told.side_name(result.new)}.{text(result.new.target, 60)}"
    case = ElementTree.Element("testcase", {"name": row.check, "classname": _clean(name), "time": _seconds(seconds)})
    words = f"{row.verdict_words}: {row.difference}, {row.allowed} allowed; {row.old} before, {row.new} now"
    tag = _outcome(row, result)
    if tag is None:
        ElementTree.SubElement(case, "system-out").text = _clean(f"{words}\n{row.detail}")
    else:
        found = ElementTree.SubElement(case, tag, {"message": _clean(words)})
        if tag != "skipped":
            found.set("type", row.verdict)
        found.text = _clean(row.detail)
    return case


def _outcome(row: Row, result: GateResult) -> str | None:
    if row.verdict == "error":
        return "error"
    if row.verdict == "pass":
        return None
    # Where no check could compare anything, the result is inconclusive by what is not comparable.
    undecided = row.verdict == "inconclusive" or compared_nothing(result.checks)
    failing = row.verdict == "regression" or (undecided and result.settings.on_inconclusive == "fail")
    return "failure" if failing and row.gates else "skipped"


def _properties(result: GateResult) -> list[tuple[str, str]]:
    latency = result.latency
    held = latency.interval or (None, None)
    found = {
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "new.identity": text(result.new.identity, 64),
        "old.identity": text(result.old.identity, 64),
        "runtime": told.runtime(result.new),
        "machine": text(result.machine_name, 120),
        "latency.ratio": latency.ratio,
        "latency.ratio.low": held[0],
        "latency.ratio.high": held[1],
        "latency.tolerance": result.settings.tolerance,
        "latency.pairs": len(latency.pairs),
        "latency.self_width": latency.self_width.half_width if latency.self_width else None,
        "edgekd": text(result.edgekd, 40),
    }
    return [(name, f"{value}") for name, value in found.items() if value is not None]


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _clean(value: str) -> str:
    return _NO_XML.sub("", value)
