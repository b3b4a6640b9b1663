"""How candidates in mixed precision were searched: what each layer costs in accuracy and gains in time."""

from __future__ import annotations

from edgekd.report.evidence import Evidence
from edgekd.report.reading import flag, items, mapping, number, rows, share, text
from edgekd.report.tables import DASH, ROWS, Table
from edgekd.report.wording import percent, plural, significant


def search_words(evidence: Evidence) -> str:
    """What was searched, what it cost and what came of it; empty where nothing was."""
    search = mapping(evidence.build.get("search"))
    accuracy, speed = mapping(search.get("accuracy")), mapping(search.get("speed"))
    told = []
    if accuracy:
        count = number(accuracy.get("evaluations")) or 0
        told.append(f"For accuracy: {text(accuracy.get('why'), 200)}; {plural(int(count), 'compiled model')} tried.")
    if speed:
        tried = [mapping(row) for row in items(speed.get("tried"))]
        names = ", ".join(
            f"{text(row.get('name'), 40)} ({plural(int(number(row.get('float_layers')) or 0), 'layer')} in float, "
            f"{percent(number(row.get('promised_gain')), 0)} less time by the profile"
            f"{'' if flag(row.get('made')) else ', not made'})"
            for row in tried
        )
        told.append(f"For speed: {text(speed.get('why'), 200)}{f': {names}' if names else ''}.")
    seconds = significant(number(search.get("seconds")), 2)
    return " ".join([*told, f"It took {seconds} seconds."] if told and seconds else told)


def search_table(evidence: Evidence, limit: int = ROWS) -> Table:
    """Each layer: its cost alone, its time in either form, and whether the model in use keeps it in float by name.

    Times are the runtime's own profile of the layer with what follows it up to the next one, on the build machine.
    """
    found = rows(mapping(evidence.build.get("search")).get("layers"))
    packed = rows(evidence.manifest.get("candidates"))
    form = next((mapping(row.get("form")) for row in packed if text(row.get("name")) == evidence.running), {})
    kept = {text(name) for name in items(form.get("float_layers"))}
    columns = ("Layer", "Signal to noise, alone", "Same decision", "Integer", "Float", "Kept in float")
    cells = []
    for row in found[:limit]:
        noise, name = number(row.get("snr_db")), text(row.get("name"), 90)
        cells.append(
            (
                name,
                f"{noise:.1f} dB" if noise is not None else "not measured",
                percent(share(row.get("agreement"))) or DASH,
                _microseconds(number(row.get("integer_us"))),
                _microseconds(number(row.get("float_us"))),
                "yes" if name in kept else "",
            )
        )
    return Table(columns, cells, frozenset({1, 2, 3, 4}), max(0, len(found) - limit))


def _microseconds(value: float | None) -> str:
    return DASH if value is None else f"{significant(value)} µs"
