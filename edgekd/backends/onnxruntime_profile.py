"""Where ONNX Runtime's time goes: its own profile, kernel by kernel."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends.profiling import WARM, Names, run_often
from edgekd.forms import LayerTime

SUFFIX = "_kernel_time"


def kernel_times(path: Path, options: Any, feeds: dict[str, np.ndarray], *, integer_ops: set[str]) -> list[LayerTime]:
    """Median microseconds of each kernel of an ONNX file in a session of ``options``, in the order of execution."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        count = run_often(lambda: session.run(None, feeds))
        events = json.loads(Path(session.end_profiling()).read_text())
    found: dict[str, tuple[str, str, list[float]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            arguments = event["args"]
            name = event["name"].removesuffix(SUFFIX)
            found.setdefault(arguments["node_index"], (name, arguments["op_name"], []))[2].append(float(event["dur"]))
    names = Names(path)
    return [
        LayerTime(
            name,
            op,
            round(statistics.median(times[WARM:]), 2),
            op in integer_ops or op.startswith("QLinear"),
            names.values([name]),
        )
        for name, op, times in found.values()
        if len(times) == WARM + count
    ]
