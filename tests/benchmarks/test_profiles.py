"""Why one file is slower than another: profiles of real runtimes by kind of kernel, and what a row tells of them."""

from pathlib import Path
from types import SimpleNamespace

import int8_forms
import numpy as np
import onnx
import pytest
import rows
from columns import UNKNOWN
from entries import Entry
from onnx import helper, numpy_helper
from profiles import compare_profiles, told
from starts import NetworkFiles, Options

from edgekd.backends import get_backend
from edgekd.forms import CompiledModel, LayerTime
from edgekd.target import load_target

TARGETS = {"onnxruntime": "onnxruntime-cpu", "openvino": "openvino-cpu"}


def save_tiny(path: Path, more: list[str]) -> CompiledModel:
    """A depthwise and a 1x1 convolution, and operators behind them."""
    random = np.random.default_rng(0)
    names = ["input", "deep", "wide", *(f"more{i}" for i in range(len(more)))]
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["deep"], "first", group=16, kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Conv", ["deep", "w1"], ["wide"], "second", kernel_shape=[1, 1]),
        *(helper.make_node(op, [names[i + 2]], [names[i + 3]]) for i, op in enumerate(more)),
    ]
    weights = [
        numpy_helper.from_array(random.normal(size=size).astype(np.float32), f"w{i}")
        for i, size in enumerate([(16, 1, 3, 3), (16, 16, 1, 1)])
    ]
    ends = [helper.make_tensor_value_info(name, 1, [1, 16, 48, 48]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return CompiledModel("", path, path, {"inference_precision": "f32"})


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_kinds_of_two_real_files_are_timed_and_counted_and_told_apart(backend: str, tmp_path: Path):
    target = load_target(TARGETS[backend])
    target = target.model_copy(update={"runtime": target.runtime.model_copy(update={"threads": 1})})
    ours = save_tiny(tmp_path / "ours.onnx", ["Erf", "Erf", "Sin"])
    peer = save_tiny(tmp_path / "peer.onnx", ["Erf"])
    feeds = {"input": np.ones((1, 16, 48, 48), np.float32)}
    found = compare_profiles(get_backend(backend), target, ours, peer, feeds, rounds=2)
    assert found is not None
    kinds = {one["kind"]: one for one in found["kinds"]}
    differences = [abs(one["difference_us"]) for one in found["kinds"]]
    assert differences == sorted(differences, reverse=True)
    assert found["ours_us"] == pytest.approx(sum(one["ours_us"] for one in found["kinds"]), abs=0.1)
    assert any("grouped" in kind for kind in kinds)
    assert any("1x1" in kind for kind in kinds)
    if backend == "onnxruntime":  # its operators are ONNX's
        assert (kinds["Erf"]["ours_kernels"], kinds["Erf"]["peer_kernels"]) == (2, 1)
        assert (kinds["Sin"]["ours_kernels"], kinds["Sin"]["peer_kernels"]) == (1, 0)
        assert kinds["Sin"]["difference_us"] == kinds["Sin"]["ours_us"] > kinds["Sin"]["peer_us"] == 0


class Scripted:
    """A backend whose profiles are given."""

    def __init__(self, ours: list[list[LayerTime]], peer: list[list[LayerTime]]) -> None:
        self.left = {"ours.xml": ours, "peer.xml": peer}
        self.asked: list[str] = []

    def profile(self, compiled: CompiledModel, target: object, feeds: object) -> list[LayerTime]:
        self.asked.append(compiled.path.name)
        return self.left[compiled.path.name].pop(0)


def compare_scripted(ours: list[list[LayerTime]], peer: list[list[LayerTime]]) -> tuple[dict | None, list[str]]:
    backend = Scripted(ours, peer)
    files = [CompiledModel("", Path(name), Path(name)) for name in ("ours.xml", "peer.xml")]
    target = SimpleNamespace(runtime=SimpleNamespace(threads=2))
    return compare_profiles(backend, target, *files, {}, rounds=len(ours)), backend.asked  # type: ignore[arg-type]


def test_profiles_are_taken_in_turns_and_a_kind_is_the_median_of_its_sums():
    def times(conv: float, add: float) -> list[LayerTime]:
        conv1 = LayerTime("a", "Convolution", conv, True)
        return [conv1, LayerTime("b", "Convolution", 1.0, True), LayerTime("c", "Add", add, False)]

    found, asked = compare_scripted([times(10, 4), times(90, 2), times(12, 3)], [times(5, 3), times(6, 9), times(7, 8)])
    assert asked == ["ours.xml", "peer.xml", "peer.xml", "ours.xml", "ours.xml", "peer.xml"]
    assert found is not None
    assert (found["ours_us"], found["peer_us"]) == (16.0, 15.0)
    conv, add = found["kinds"]
    assert conv == {
        "kind": "Convolution int8",
        "difference_us": 6.0,
        "ours_us": 13.0,
        "peer_us": 7.0,
        "ours_kernels": 2,
        "peer_kernels": 2,
    }
    assert (add["kind"], add["difference_us"]) == ("Add", -5.0)
    assert told(found) == "Convolution int8 +6 µs of 13 (2 and 2 kernels), Add -5 µs of 3 (1 and 1 kernels)"


def test_a_runtime_that_tells_no_times_has_no_profile():
    assert compare_scripted([[]], [[]])[0] is None


@pytest.mark.parametrize("ratio", [1.02, 1.0, 0.98])
def test_a_row_has_a_profile_where_ours_is_slower_and_stays_one_line(ratio: float, tmp_path: Path, monkeypatch):
    def entry(name: str, ours: bool, integer: bool = True) -> Entry:
        row = {"name": name, "snr_db": 20.0, "agreement": 1.0, "integer": 2, "compute": 2, "proof": "ok", "top1": None}
        return Entry(name, ours, integer, row, None, save_tiny(tmp_path / f"{name}.onnx", []))  # type: ignore[arg-type]

    met = {"best_peer": "static", "ours_over_best_peer": ratio, "interval": [0.9, 1.1], "ours_over_float": 0.5}
    race = [SimpleNamespace(label="int8", ratio=0.5), SimpleNamespace(label="static", ratio=0.49)]
    ours = [entry("int8", True), entry("float", True, integer=False)]
    monkeypatch.setattr(rows, "our_entries", lambda *given: (ours, []))
    monkeypatch.setattr(rows, "peer_entries", lambda *given: ([entry("static", False)], []))
    monkeypatch.setattr(rows, "_race", lambda *given: race)
    monkeypatch.setattr(rows, "_meet", lambda *given: met)
    held_out = np.ones((2, 16, 48, 48), np.float32)
    files = NetworkFiles("tiny", tmp_path, held_out, held_out, held_out, "min-max", {}, "")
    row = rows.measure_backend(files, "onnxruntime", Options())
    assert UNKNOWN.keys() <= row.keys()
    text = int8_forms.line(row)
    assert "\n" not in text
    if ratio > 1:
        assert {one["kind"] for one in row["profile"]["kinds"]} >= {"Conv grouped", "Conv 1x1"}
        assert f"profile: {told(row['profile'])}" in text
    else:
        assert row["profile"] is None
        assert "profile" not in text
    for name in ("profile", "float_top1", "top1"):  # as in files from before
        del row[name]
    assert int8_forms.line(row).startswith("tiny")
