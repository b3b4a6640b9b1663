"""What the checks of a gate come to: one verdict, its exit code and its sentence."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.errors import ExitCode
from edgekd.gate_result import Check, Latency, Settings, Verdict, compared_nothing


def verdict_of(latency: Latency, checks: Sequence[Check]) -> Verdict:
    """The worst of the checks that gate; a model that failed is an error, whatever gates.

    Where none of them had two figures to compare, nothing speaks for the new bundle: inconclusive.
    """
    if latency.verdict == "error":
        return "error"
    found = {check.verdict for check in checks if check.gates}
    if "regression" in found:
        return "regression"
    return "inconclusive" if "inconclusive" in found or compared_nothing(checks) else "pass"


def exit_code_of(verdict: Verdict, settings: Settings) -> ExitCode:
    """What the command ends with."""
    if verdict == "inconclusive":
        return ExitCode.INCONCLUSIVE if settings.on_inconclusive == "fail" else ExitCode.OK
    return {"pass": ExitCode.OK, "regression": ExitCode.REGRESSION, "error": ExitCode.INTERNAL}[verdict]


def summary_of(verdict: Verdict, latency: Latency, checks: Sequence[Check], settings: Settings) -> str:
    """The verdict in one sentence, and what was found of latency."""
    deciding = [check for check in checks if check.gates]
    head = "passed" if verdict == "pass" else str(verdict)
    if verdict == "regression":
        head = f"regression of {', '.join(check.name for check in deciding if check.verdict == 'regression')}"
    elif verdict == "inconclusive":
        if settings.on_inconclusive != "fail":
            head = f"inconclusive, which the policy {settings.on_inconclusive!r} lets pass"
        if compared_nothing(checks):
            why = "; ".join(f"{check.name}: {check.detail}" for check in deciding)
            head = f"{head}: nothing that decides could be compared ({why})"
    return f"{head}; latency {latency.why}"
