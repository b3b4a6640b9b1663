"""What a gate found, in sentences; each stands in every report alike."""

from __future__ import annotations

import math

from edgekd.gate_result import GateResult, Need, Side
from edgekd.report.gate.rows import NAMES
from edgekd.report.reading import mapping, number, text
from edgekd.report.wording import allowance, duration, joined, percent, plural, significant
from edgekd.runtime.requirement import Requirement

SUMMARY = 600
_HEADS = {"pass": "Passed", "inconclusive": "Inconclusive", "error": "Error"}


def subject(result: GateResult) -> str:
    """What was compared: the bundle's name and target."""
    return f"{side_name(result.new)} on {text(result.new.target, 60) or 'an unnamed target'}"


def side_name(side: Side) -> str:
    """A bundle's name."""
    return text(side.name, 80) or "unnamed"


def headline(result: GateResult) -> str:
    """The verdict in a few words; a regression names its checks."""
    if result.verdict == "regression":
        worse = [NAMES[one.name].lower() for one in result.checks if one.gates and one.verdict == "regression"]
        return f"Regression of {', '.join(worse)}"
    if result.verdict == "inconclusive" and result.exit_code == 0:
        return "Inconclusive, let pass"
    return _HEADS[result.verdict]


def summary(result: GateResult) -> str:
    """The document's own sentence."""
    return _sentence(text(result.summary, SUMMARY))


def width(result: GateResult) -> str:
    """The interval that the old model would have against itself, and what it takes where that is too wide."""
    found = result.latency.self_width
    if found is None:
        return ""
    allowed = allowance(result.settings.tolerance)
    told = (
        f"Against itself the old model would have an interval of ±{percent(found.half_width)} "
        f"after {plural(found.pairs, 'pair')}"
    )
    if not found.too_wide:
        return f"{told}: narrow enough for the {allowed} that are allowed."
    head = f"{told}: too wide for the {allowed} that are allowed, so that a model that changed nothing could not pass."
    if found.need is not None:
        return f"{head} {_need(found.need)} would do."
    if result.settings.tolerance <= 0:
        return f"{head} At this tolerance no number of pairs tells equal from slower."
    return f"{head} More than a day of measuring would be needed."


def harness(result: GateResult) -> str:
    """What the timing loop adds."""
    found = result.latency.overhead
    if found is None:
        return ""
    return (
        f"The timing loop adds {significant(found.ns)} ns to every run of both models, "
        f"{percent(found.share)} of the faster one's; it is not taken off."
    )


def measured(result: GateResult) -> str:
    """How latency was compared."""
    latency = result.latency
    if latency.method == "unpaired":
        return "Stored samples of other times were set beside each other: one process of each, which decides nothing."
    return (
        f"{plural(len(latency.pairs), 'pair')} of fresh processes in {duration(result.seconds)}; a pair's value is the "
        f"median ratio of neighbouring blocks. Each end of an interval is wrong with a chance of {_error(result)}."
    )


def runtime(side: Side) -> str:
    """The runtime as the timed process opened it."""
    opened = mapping(side.opened)
    name = f"{text(opened.get('runtime'), 40)} {text(opened.get('version'), 60)}".strip()
    threads = number(opened.get("threads"))
    precision = text(opened.get("inference_precision"), 20)
    return joined(
        name or text(side.backend, 40),
        plural(round(threads), "thread") if threads is not None else "",
        f"float layers in {precision}" if precision else "",
    )


def built_with(result: GateResult) -> str:
    """Where the bundles were built with different versions of the runtime, or with another than ran; else empty."""
    try:
        library = Requirement.parse(result.new.runtime_requirement).name
    except ValueError:
        return ""
    old, new = (text(side.versions.get(library), 60) for side in (result.old, result.new))
    here = text(mapping(result.new.opened).get("version"), 60)
    if not old or not new or (_same_release(old, new) and (not here or _same_release(new, here))):
        return ""
    name = text(library, 40)
    if _same_release(old, new):
        built = f"Both bundles were built with {name} {new}"
    else:
        built = f"The old bundle was built with {name} {old}, the new one with {new}"
    ran = f", and {here} ran here" if here else ""
    return f"{built}{ran}: a candidate that is fastest under one version need not be under another."


def _same_release(one: str, other: str) -> bool:
    try:
        return Requirement("", (("==", one),)).allows(other)
    except ValueError:
        return one == other


def _need(found: Need) -> str:
    budget = math.ceil(found.seconds)
    return f"About {plural(found.pairs, 'pair')} ({duration(found.seconds)} of measuring, --budget-seconds {budget})"


def _error(result: GateResult) -> str:
    looks = result.latency.looks
    return percent(looks[-1].error, 3) if looks else percent(result.latency.level, 3)


def _sentence(words: str) -> str:
    if not words:
        return ""
    return words[0].upper() + words[1:] + ("" if words.endswith(".") else ".")
