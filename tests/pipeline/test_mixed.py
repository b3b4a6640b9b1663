"""Mixed precision on real runtimes: the planted layer alone stays in float, the search is bounded, times add up."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from threading import Event

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekd.backends import get_backend
from edgekd.forms import CompiledModel, QuantForm
from edgekd.lower.graph import Graph
from edgekd.lower.paying import cheapest_floats, divided_time
from edgekd.lower.segments import crossings, segments
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.candidates import make_candidates, session_run
from edgekd.pipeline.mixed import mixed_candidates, with_short_floats
from edgekd.pipeline.mixed_accuracy import fewest_floats
from edgekd.pipeline.mixed_speed import profile_layers
from edgekd.quantize import export_float, measure_sensitivity, prepare, write_master
from edgekd.stage import NoProgress
from edgekd.target import load_target

LAYERS = [f"layer{i}" for i in range(20)]


@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=4), st.permutations(LAYERS))
def test_the_search_finds_just_what_is_needed(needed: set[str], order: list[str]) -> None:
    calls = []

    def keeps(kept: frozenset[str]) -> bool:
        calls.append(kept)
        return needed <= kept

    found = fewest_floats(order, keeps, evaluations=100)
    if needed <= set(order[:-1]):
        assert found.kept == needed
    assert found.evaluations == len(calls) == len(found.tried)
    few = fewest_floats(order, keeps, evaluations=6)
    assert few.evaluations <= 6
    assert few.kept is None or needed <= few.kept


def test_a_good_order_needs_few_evaluations() -> None:
    found = fewest_floats(LAYERS, lambda kept: "layer0" in kept)
    assert (found.kept, found.evaluations) == ({"layer0"}, 1)
    found = fewest_floats(LAYERS, lambda kept: set(LAYERS[:7]) <= kept)
    assert found.kept == set(LAYERS[:7])
    assert found.evaluations <= 14
    nothing = fewest_floats(LAYERS, lambda kept: False)
    assert nothing.kept is None
    assert nothing.evaluations <= 6


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6),
    st.integers(0, 5),
    st.sets(st.integers(0, 5), max_size=3),
)
def test_the_division_is_the_cheapest_there_is(times: list[tuple[int, int]], cost: int, needed: set[int]) -> None:
    names = [f"s{i}" for i in range(len(times))]
    forced = {name for i, name in enumerate(names) if i in needed}
    ints, floats = ({name: float(row[i]) for name, row in zip(names, times, strict=True)} for i in (0, 1))
    crossing = {pair: float(cost) for pair in pairwise(names)}

    def total(kept: set[str]) -> float:
        own = sum(floats[name] if name in kept else ints[name] for name in names)
        return own + sum(value for (a, b), value in crossing.items() if (a in kept) != (b in kept))

    kept, promised = cheapest_floats(ints, floats, crossing, forced)
    every = [{name for i, name in enumerate(names) if mask >> i & 1} for mask in range(2 ** len(names))]
    assert forced <= kept
    assert promised == total(set(kept)) == min(total(one) for one in every if forced <= one)
    assert all(divided_time(one, ints, floats, crossing) == total(one) for one in every)


def planted() -> nn.Sequential:
    """A classifier by the mean of its input's halves; one layer has a huge weight for a channel that is always zero."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(1, 16, 3, padding=1), *[nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)]]
    with torch.no_grad():
        convs[0].weight[0] = 0
        convs[0].bias[0] = -1
        convs[1].weight[:, 0] = 300
    body = [part for conv in convs for part in (conv, nn.ReLU())]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple:
    """What the quantize stage leaves of the planted network, and samples with the float network's decisions."""
    folder = tmp_path_factory.mktemp("planted")
    student = planted()
    samples = torch.randn(400, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    samples *= torch.rand(400, 1, 1, 1, generator=torch.Generator().manual_seed(2)) * 4
    with torch.no_grad():
        # Logits around zero: the planted layer's noise is then larger than what is left of the signal.
        student[-1].bias -= student(samples).mean(0)
    export_float(student, samples[:2], folder / "float.onnx")
    ready = prepare(copy.deepcopy(student), samples[:2])
    ready.calibrate([samples])
    write_master(ready, samples[:2], folder)
    measure_sensitivity(ready, samples[:64], seconds=5).save(folder / "sensitivity.json")
    with torch.no_grad():
        logits = student(samples).numpy()
    np.savez(
        folder / "proof_samples.npz", samples=samples[:64].numpy(), labels=logits[:64].argmax(1), outputs=logits[:64]
    )
    return folder, samples.numpy(), logits


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_the_planted_layer_alone_stays_in_float(name, folder, tmp_path, one_thread) -> None:
    target = load_target(name)
    backend = get_backend(target.backend)
    maker = make_candidates(backend, target, folder[0], tmp_path / "out", NoProgress())
    _, x, logits = folder

    def error(compiled: CompiledModel) -> float:
        found = session_run(backend.load(compiled, target))(x)
        return float(np.square(found - logits).mean() / np.square(logits - logits.mean(0)).mean())

    allowed = 0.05
    assert error(maker.made[0].compiled) > allowed
    told = mixed_candidates(
        maker, accurate=False, keeps=lambda one: error(one) <= allowed, scratch=tmp_path / "scratch"
    )
    mixed = next(one for one in maker.made if one.row["name"] == "int8-mixed")
    assert mixed.row["form"]["float_layers"] == told["accuracy"]["kept"] == ["conv2d_1"]
    assert told["accuracy"]["evaluations"] <= 3
    assert error(mixed.compiled) <= allowed
    assert all(hop["ok"] for hop in mixed.row["proof"])
    assert mixed.row["proof"][-1]["hop"] == "compiled"
    layers = backend.coverage(mixed.compiled, target)
    assert [layer.integer for layer in layers].count(False) == 1
    assert {row["name"] for row in told["layers"]} == {"conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "logits"}
    assert all(row["float_us"] > 0 and row["integer_us"] > 0 for row in told["layers"])
    assert json.dumps(told)


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_no_time_is_lost_between_the_segments(name, folder, tmp_path, one_thread) -> None:
    target = load_target(name)
    backend = get_backend(target.backend)
    maker = make_candidates(backend, target, folder[0], tmp_path / "out", NoProgress())
    found = profile_layers(backend, target, folder[0], maker.made[0], tmp_path / "scratch", folder[1][:1], NoProgress())
    assert [row["name"] for row in found.layers] == ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "logits"]
    for kept, gain in found.floats:
        assert 0 < len(kept) < 5
        assert 0.02 <= gain < 1
        # The head alone has no value beside its output.
        assert kept < found.values(kept) or kept == found.values(kept) == {"logits"}
    assert found.values(frozenset({"conv2d_1"})) == {"conv2d_1", "relu_1"}


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_layers_that_promise_to_be_faster_in_float_are_made_so(name, folder, tmp_path, one_thread, monkeypatch) -> None:
    """The promise is made up here, since a real one depends on the machine; all else is real."""
    target = load_target(name)
    maker = make_candidates(get_backend(target.backend), target, folder[0], tmp_path / "out", NoProgress())
    monkeypatch.setattr("edgekd.lower.paying.cheapest_floats", lambda *a: (frozenset({"conv2d_1", "conv2d_2"}), 0.0))
    told = mixed_candidates(maker, accurate=True, keeps=lambda one: True, scratch=tmp_path / "scratch")
    assert told["speed"]["tried"] == [{"name": "int8-paying", "float_layers": 2, "promised_gain": 1.0, "made": True}]
    paying = maker.made[-1]
    assert all(hop["ok"] for hop in paying.row["proof"])
    layers = get_backend(target.backend).coverage(paying.compiled, target)
    assert [layer.integer for layer in layers].count(False) == 2
    assert len(layers) == 5


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_what_is_promised_is_promised_of_the_floats_that_the_accuracy_needs(
    name, folder, tmp_path, one_thread, monkeypatch
) -> None:
    """Without a cost of changes every other layer is in its faster form, and that is all the gain."""
    monkeypatch.setattr("edgekd.pipeline.mixed_speed.CROSSING", (0.0,))
    target = load_target(name)
    backend = get_backend(target.backend)
    maker = make_candidates(backend, target, folder[0], tmp_path / "out", NoProgress())
    forced = frozenset({"conv2d_1"})
    found = profile_layers(
        backend, target, folder[0], maker.made[0], tmp_path / "scratch", folder[1][:1], NoProgress(), forced
    )
    before = sum(row["float_us" if row["name"] in forced else "integer_us"] for row in found.layers)
    after = sum(
        row["float_us"] if row["name"] in forced else min(row["integer_us"], row["float_us"]) for row in found.layers
    )
    for kept, gain in found.floats:
        assert forced < kept
        assert gain == pytest.approx(1 - after / before, abs=0.02)
    # Times are told in tenths of microseconds; and a division without integers is none.
    all_float = all(row["name"] in forced or row["float_us"] < row["integer_us"] for row in found.layers)
    assert found.floats or all_float or 1 - after / before < 0.04


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_the_floats_that_the_accuracy_needs_are_in_every_division(
    name, folder, tmp_path, one_thread, monkeypatch
) -> None:
    """The promise is made up here too."""
    target = load_target(name)
    maker = make_candidates(get_backend(target.backend), target, folder[0], tmp_path / "out", NoProgress())
    monkeypatch.setattr("edgekd.lower.paying.cheapest_floats", lambda *a: (frozenset({*a[3], "conv2d_2"}), 0.0))
    told = mixed_candidates(maker, accurate=False, keeps=lambda one: True, scratch=tmp_path / "scratch")
    assert told["accuracy"]["kept"] == ["conv2d_1"]
    assert told["speed"]["tried"] == [{"name": "int8-paying", "float_layers": 2, "promised_gain": 1.0, "made": True}]
    assert maker.made[-1].row["form"]["float_layers"] == ["conv2d_1", "conv2d_2", "relu_1", "relu_2"]


def test_layers_are_profiled_while_no_other_build_measures(folder, tmp_path, one_thread) -> None:
    waits = Event()

    class Told(NoProgress):
        def log(self, text: str) -> None:
            if "another build or bench is measuring" in text:
                waits.set()

    target = load_target("onnxruntime-cpu")
    backend = get_backend(target.backend)
    maker = make_candidates(backend, target, folder[0], tmp_path / "out", NoProgress())
    arguments = (backend, target, folder[0], maker.made[0], tmp_path / "scratch", folder[1][:1], Told())
    with ThreadPoolExecutor(1) as pool:
        with measuring_alone(NoProgress()):
            profiled = pool.submit(profile_layers, *arguments)
            assert waits.wait(60)
            assert not profiled.done()
        assert profiled.result(60).layers


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_only_values_of_the_master_stay_in_float(name, tmp_path, one_thread) -> None:
    """A backend spells shuffles in its own values, which forms cannot name."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.ChannelShuffle(2), nn.Conv2d(16, 16, 3), nn.ReLU()]
    student = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    samples = torch.randn(64, 1, 12, 12)
    export_float(student, samples[:2], tmp_path / "float.onnx")
    ready = prepare(copy.deepcopy(student), samples[:2])
    ready.calibrate([samples])
    master = write_master(ready, samples[:2], tmp_path)
    outputs = student(samples).detach().numpy()
    np.savez(tmp_path / "proof_samples.npz", samples=samples.numpy(), labels=outputs.argmax(1), outputs=outputs)
    target = load_target(name)
    backend = get_backend(target.backend)
    maker = make_candidates(backend, target, tmp_path, tmp_path / "out", NoProgress())
    found = profile_layers(
        backend, target, tmp_path, maker.made[0], tmp_path / "scratch", samples[:1].numpy(), NoProgress()
    )
    segments = frozenset(row["name"] for row in found.layers)
    assert len(segments) == 3
    assert found.values(segments) <= Graph(onnx.load(master.path)).producer.keys()


def test_linear_layers_of_tokens_are_searched_too(tmp_path, one_thread) -> None:
    """Such a layer is a product and an addition in the master, and known by its sum in torch."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.second(self.first(x).relu()).relu().mean(1))

    torch.manual_seed(0)
    student, samples = Tokens().eval(), torch.randn(64, 4, 8)
    export_float(student, samples[:2], tmp_path / "float.onnx")
    ready = prepare(copy.deepcopy(student), samples[:2])
    ready.calibrate([samples])
    master = write_master(ready, samples[:2], tmp_path)
    measure_sensitivity(ready, samples, seconds=5).save(tmp_path / "sensitivity.json")
    outputs = student(samples).detach().numpy()
    np.savez(tmp_path / "proof_samples.npz", samples=samples.numpy(), labels=outputs.argmax(1), outputs=outputs)
    target = load_target("onnxruntime-cpu")
    maker = make_candidates(get_backend(target.backend), target, tmp_path, tmp_path / "out", NoProgress())
    told = mixed_candidates(maker, accurate=False, keeps=lambda one: True, scratch=tmp_path / "scratch")
    layers = {layer.node.output[0] for layer in Graph(onnx.load(master.path)).layers()}
    assert len(layers) == 3
    assert {row["name"] for row in told["layers"]} == layers
    assert set(told["accuracy"]["kept"]) < layers
    mixed = next(one for one in maker.made if one.row["name"] == "int8-mixed")
    coverage = maker.backend.coverage(mixed.compiled, target)
    assert [layer.integer for layer in coverage].count(False) == len(told["accuracy"]["kept"]) == 1


def test_where_the_target_is_elsewhere_nothing_is_profiled(folder, tmp_path, one_thread) -> None:
    target = load_target("jetson")
    maker = make_candidates(get_backend("tensorrt"), target, folder[0], tmp_path / "out", NoProgress())
    count = len(maker.made)
    told = mixed_candidates(maker, accurate=True, keeps=lambda one: True, scratch=tmp_path / "scratch")
    assert told["accuracy"] is told["speed"] is None
    assert len(maker.made) == count


def test_what_pays_is_searched_with_the_shortest_float_rest() -> None:
    first = QuantForm("int8", "openvino", signed="s8")
    ends = replace(first, name="int8-float-ends", float_groups=frozenset({"first", "last"}))
    half = replace(first, name="int8-bf16", float_type="bf16")
    whole = QuantForm("float-bf16", "openvino", float_groups=frozenset({"all"}), float_type="bf16")
    assert with_short_floats([first, ends, half, whole]) == 2
    assert with_short_floats([first, ends, whole]) == 0


def test_segments_of_a_residual_block(folder) -> None:
    """An addition belongs to the later of its branches; what crosses is told by both ends."""
    from onnx import helper

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Gemm", ["d", "w2"], ["e"]),
    ]
    info = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "e")]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:])))
    assert segments(graph) == {"a": "a", "b": "a", "c": "c", "d": "c", "e": "e"}
    assert crossings(graph) == {("b", "a", "c"), ("d", "c", "e")}
    whole = segments(Graph(onnx.load(folder[0] / "master.onnx")))
    assert whole["relu_3"] == "conv2d_3"
