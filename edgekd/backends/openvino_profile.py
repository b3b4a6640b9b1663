"""Where OpenVINO's time goes: the CPU plugin's counters, kernel by kernel."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends.openvino_layers import INTEGER, precision_of, text_of
from edgekd.backends.profiling import WARM, Names, run_often
from edgekd.forms import LayerTime
from edgekd.runtime.session_openvino import openvino_core


def kernel_times(path: Path, options: dict[str, str], feeds: dict[str, np.ndarray]) -> list[LayerTime]:
    """Median microseconds of each kernel of an ONNX file, compiled for the shapes of ``feeds``."""
    core = openvino_core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    compiled = core.compile_model(model, "CPU", {**options, "PERF_COUNT": "YES"})
    request = compiled.create_infer_request()
    counters: list[dict[str, Any]] = []

    def run() -> None:
        request.infer(feeds)
        counters.append({one.node_name: one for one in request.get_profiling_info()})

    run_often(run)
    made_of = {node.friendly_name: node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()}
    names = Names(path)
    found = []
    for name, one in counters[-1].items():
        # What is shorter than the clock tells counts as not run, in some of the runs.
        times = [row[name].real_time.total_seconds() * 1e6 for row in counters[WARM:] if name in row]
        if not any(times):
            continue
        info = made_of.get(name, {})
        integer = precision_of(info) in INTEGER
        values = names.values([*text_of(info, "originalLayersNames").split(","), name])
        found.append(LayerTime(name, one.node_type, round(statistics.median(times), 2), integer, values))
    return found
