"""What `bench.bench` found, as lines of text: on devices and build machines alike."""

from __future__ import annotations

from typing import Any


def tell_bench(result: dict[str, Any]) -> list[str]:
    """Lines for a terminal; a figure that was not measured is told as such."""
    lines = {"offline": _offline, "multi-stream": _multi_stream}.get(result.get("scenario", ""), _single)(result)
    got = _opened(result)
    wanted = result.get("wanted") or {}
    if wanted.get("cores"):
        lines.append(f"on cores {', '.join(map(str, wanted['cores']))}")
    if got < wanted.get("threads", got):
        lines.append(f"threads: {got} of {wanted['threads']} wanted; this process may use no more")
    return lines


def percentiles(row: dict[str, Any]) -> list[str]:
    """p50, p90 and p99 of a row."""
    return [
        f"{name}: {_ms(row[name]) if row[name] is not None else 'not enough runs'}" for name in ("p50", "p90", "p99")
    ]


def _single(result: dict[str, Any]) -> list[str]:
    latency = result["latency_ms"]
    lines = [f"{_head(result, latency)}, {latency['runs']} runs", *percentiles(latency)]
    cold = result.get("cold_ms")
    if cold:
        starts = len(cold["load_ms"])
        lines.append(
            f"cold: {_ms(cold['p50'])} (load {_ms(cold['load_p50'])}, first run {_ms(cold['first_p50'])};"
            f" {starts} fresh process{'es' if starts > 1 else ''})"
        )
    for row in result.get("after_idle_ms") or []:
        lines.append(
            f"after {row['pause_s']:g} s idle: {_ms(row['first'])}, then {_ms(row['second'])}"
            f" (before: {_ms(row['warm'])}; {row['pauses']} pauses)"
        )
    lines += _energy(result)
    memory = result["peak_memory_mb"]
    return [*lines, f"memory: {memory:.1f} MB" if memory is not None else "memory: not told by this kernel"]


def _offline(result: dict[str, Any]) -> list[str]:
    rows = result["offline"]
    lines = [_head(result, rows[0])]
    for row in rows:
        lines.append(
            f"batch {row['batch']}: {row['throughput']:.1f} samples/s ({row['samples']} in {row['seconds']:.2f} s;"
            f" a batch takes {_ms(row['p50'])})"
        )
        lines += [f"  {line}" for line in _energy(row)]
    return lines


def _multi_stream(result: dict[str, Any]) -> list[str]:
    row = result["multi_stream"]
    return [
        f"{_head(result, row)}, {row['runs']} queries of {row['streams']} samples",
        *percentiles(row),
        f"{row['throughput']:.1f} samples/s ({row['samples']} in {row['seconds']:.2f} s)",
        f"{row['lanes']} at once, of {row['threads_a_lane']} thread{'s' if row['threads_a_lane'] > 1 else ''} each",
        *_energy(row),
    ]


def _energy(row: dict[str, Any]) -> list[str]:
    """Joules and the hottest zone; no line where the machine does not tell."""
    lines, energy, celsius = [], row.get("energy"), row.get("celsius")
    if energy and energy["joules_per_inference"] is not None:
        lines.append(
            f"energy: {1e3 * energy['joules_per_inference']:.3f} mJ a sample, idle power included ({energy['source']})"
        )
    elif energy:
        rails = ", ".join(
            f"{name} {joules / energy['seconds']:.2f} W" for name, joules in energy["joules_by_rail"].items()
        )
        lines.append(f"power: {rails} ({energy['source']}; no rail feeds all of it)")
    if celsius:
        name, zone = max(celsius.items(), key=lambda item: item[1]["highest"])
        lines.append(f"temperature: {name} {zone['start']:.1f} to {zone['end']:.1f} °C")
    return lines


def _opened(result: dict[str, Any]) -> int:
    """Threads of the whole process."""
    if "multi_stream" in result:
        return int(result["multi_stream"]["lanes"] * result["multi_stream"]["threads_a_lane"])
    return int((result["offline"][0] if "offline" in result else result["latency_ms"])["threads"])


def _head(result: dict[str, Any], row: dict[str, Any]) -> str:
    floats = f"float layers in {row['inference_precision']}"
    return f"{result['model']['candidate']} on {row['machine']}, {row['runtime']}, {floats}"


def _ms(value: float) -> str:
    return f"{value:.3f} ms"
