"""The tables that describe: machine, versions, preprocessing, inputs and outputs, golden outputs, files."""

from __future__ import annotations

from typing import Any

from edgekd.report.evidence import Evidence
from edgekd.report.reading import flag, items, mapping, number, rows, share, text
from edgekd.report.tables import ROWS, Table
from edgekd.report.wording import SPACE, count, joined, percent, points, shape, significant, size

LABELS = 20


def machine_table(entry: dict[str, Any]) -> Table:
    """An entry's machine."""
    machine = mapping(entry.get("machine"))
    quota, memory = number(machine.get("cpu_quota")), number(machine.get("memory_mb"))
    cells = (
        ("Processor", joined(text(machine.get("cpu")), text(machine.get("board")))),
        ("Architecture", joined(text(machine.get("arch")), _instruction_sets(machine))),
        ("Cores", _cores(machine)),
        ("CPU quota", f"{significant(quota)} CPUs" if quota is not None else ""),
        ("Memory", size(memory * 1e6) if memory is not None else ""),
        ("GPU", joined(text(machine.get("gpu")), text(machine.get("gpu_driver")))),
        ("System", joined(text(machine.get("kernel")), "virtual machine" if machine.get("virtual") is True else "")),
        ("Clock governor", text(machine.get("governor"))),
    )
    return Table(("", ""), [row for row in cells if row[1]])


def _instruction_sets(machine: dict[str, Any]) -> str:
    """Those that a machine names, as one text of the usual length."""
    return text(" ".join(text(one) for one in items(machine.get("isa"))))


def _cores(machine: dict[str, Any]) -> str:
    whole, usable = number(machine.get("cores")), number(machine.get("usable_cores"))
    if usable is not None and whole is not None and usable != whole:
        return f"{count(usable)} of {count(whole)} usable"
    return count(usable if usable is not None else whole)


def version_table(evidence: Evidence) -> Table:
    """The packages that made the bundle, and what it needs to run."""
    found = mapping(evidence.manifest.get("versions"))
    cells = [(text(name, 60), text(value, 60)) for name, value in sorted(found.items()) if text(value)]
    cells = [(name, value if value != "absent" else "not installed") for name, value in cells]
    needs = text(evidence.manifest.get("runtime_requirement"))
    return Table(("", ""), [*([("To run it", needs)] if needs else []), *cells])


def preprocess_table(evidence: Evidence) -> Table:
    """From a raw sample to the model's input, in the order in which it is done."""
    spec = mapping(evidence.manifest.get("preprocess"))
    layouts = {
        "hwc": "image as height × width × channels",
        "chw": "image as channels × height × width",
        "none": "any tensor, taken as it is",
    }
    resize, crop = mapping(spec.get("resize")), items(spec.get("crop"))
    wanted = resize.get("size")
    to = shape(wanted) if isinstance(wanted, list | tuple) else f"{text(wanted)} on the shorter side" if wanted else ""
    layout = text(spec.get("layout"))
    cells = (
        ("Raw sample", layouts.get(layout, layout)),
        ("Resize", joined(text(resize.get("mode")), to)),
        ("Crop", f"{shape(crop)}, centred" if crop else ""),
        ("Scale", _numbers(spec.get("scale"))),
        ("Mean", _numbers(spec.get("mean"))),
        ("Standard deviation", _numbers(spec.get("std"))),
    )
    return Table(("", ""), [row for row in cells if row[1]])


def _numbers(value: Any) -> str:
    return joined(*(text(one) for one in (value if isinstance(value, list) else [value])))


def tensor_table(evidence: Evidence) -> Table:
    """Inputs and outputs of the model."""
    cells = [
        (way, text(row.get("name")), text(row.get("dtype"), 20), shape(row.get("shape")), text(row.get("about")))
        for way, key in (("input", "inputs"), ("output", "outputs"))
        for row in rows(evidence.manifest.get(key))
    ]
    return Table(("", "Name", "Type", "Shape", "About"), cells)


def labels_words(evidence: Evidence) -> str:
    """The first labels, and how many more there are."""
    found = items(evidence.manifest.get("labels"))
    more = f"and {count(len(found) - LABELS)} more" if len(found) > LABELS else ""
    return joined(*(text(label, 40) for label in found[:LABELS]), more)


def quantization_table(evidence: Evidence) -> Table:
    """How far up the ladder of methods the build went, and why."""
    report = mapping(evidence.manifest.get("quantization"))
    allowed = number(report.get("allowed_drop"))
    methods = {"ptq": "calibration alone (PTQ)", "qat": "quantization-aware training (QAT)"}
    method = text(report.get("method"))
    learned = "learned scales" if flag(report.get("learned_scales")) else ""
    techniques = joined(*(text(one, 40) for one in items(report.get("techniques"))), learned)
    cells = (
        ("Method", methods.get(method, method)),
        ("With", techniques),
        ("Why", text(report.get("why"))),
        ("Validation, float", percent(share(report.get("val_float")))),
        ("Validation, PTQ", percent(share(report.get("val_ptq")))),
        ("Validation, QAT", percent(share(report.get("val_qat")))),
        ("Drop allowed", f"{allowed:g} points" if allowed is not None else ""),
        ("Validated with", _steps(report.get("judged_steps"))),
        ("Calibration", joined(text(report.get("calibration")), _samples(report.get("samples")))),
        ("Float, since no rule knows them", _operators(report.get("without_rule"))),
        ("Noted", joined(*(text(note) for note in items(report.get("notes"))))),
    )
    return Table(("", ""), [row for row in cells if row[1]])


def _operators(value: Any) -> str:
    """Operators with how many there are of each."""
    found = ((text(name, 40), number(many)) for name, many in mapping(value).items())
    return joined(*(f"{name} ({count(many)})" for name, many in found if many is not None))


def ladder_table(evidence: Evidence) -> Table:
    """Each rung that was tried, what it costs against the float student, and how long it took."""
    report = mapping(evidence.manifest.get("quantization"))
    base = number(report.get("val_float"))
    seconds = items(evidence.build.get("rung_seconds"))
    cells = []
    for index, rung in enumerate(rows(report.get("rungs"))):
        value = share(rung.get("val"))
        taken = number(seconds[index]) if index < len(seconds) else None
        cells.append(
            (
                text(rung.get("name"), 120),
                percent(value),
                points(100 * (base - value)) if base is not None and value is not None else "",
                f"{taken:.1f}{SPACE}s" if taken is not None else "",
                "kept" if flag(rung.get("kept")) else "",
            )
        )
    return Table(("Rung", "Validation", "Costs", "Took", ""), cells, frozenset({1, 2, 3}))


def _steps(value: Any) -> str:
    found = number(value)
    return f"{count(found)} steps of what cannot be negative" if found is not None else ""


def _samples(value: Any) -> str:
    found = number(value)
    return f"{count(found)} samples" if found is not None else ""


def golden_table(evidence: Evidence) -> Table:
    """What ``verify`` compares on the device, and how closely."""
    outputs = mapping(mapping(evidence.manifest.get("golden")).get("outputs"))
    kinds = {
        "exact": "the same bits",
        "max_abs": "largest difference at most",
        "top1": "the same largest class in every sample",
    }
    cells = []
    for name, row in outputs.items():
        tolerance = mapping(mapping(row).get("tolerance"))
        kind = text(tolerance.get("kind"))
        limit = number(tolerance.get("value")) if kind == "max_abs" else None
        cells.append((text(name), joined(kinds.get(kind, kind), significant(limit), by=" ")))
    return Table(("Output", "Tolerance"), cells)


def file_table(evidence: Evidence, limit: int = ROWS) -> Table:
    """The files of the manifest with their digests."""
    found = sorted(mapping(evidence.manifest.get("files")).items())
    cells = [
        (text(name, 120), size(number(mapping(row).get("size"))), text(mapping(row).get("sha256"), 64))
        for name, row in found[:limit]
    ]
    return Table(("File", "Size", "SHA-256"), cells, frozenset({1}), max(0, len(found) - limit))
