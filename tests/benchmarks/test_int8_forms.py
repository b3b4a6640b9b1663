"""The benchmark's rows without timing, on a network of three layers: everybody's files made, scored and counted."""

import json
import math
from pathlib import Path

import int8_forms
import numpy as np
import pytest
import rows
import starts
import torch
from columns import UNKNOWN
from entries import Entry
from networks import samples
from rows import _choose, _unmatched, measure_backend
from starts import SETTINGS, Options, make_files, snr_db
from torch import nn

OPTIONS = Options(seconds=0, calibration=18, held_out=18)


def make_tiny(name: str = "tiny", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


def test_snr_is_the_power_of_the_reference_over_that_of_the_difference():
    reference = np.array([[3.0, -4.0]])
    assert snr_db(reference * 1.1, reference) == pytest.approx(20)
    assert snr_db(reference, reference) == pytest.approx(200)


def test_a_sample_is_the_same_whatever_the_count_and_others_differ():
    one, three = samples(1, 5, 32), samples(3, 5, 32)
    assert torch.equal(one[0], three[0])
    assert not torch.equal(three[0], three[1])
    assert not torch.equal(one, samples(1, 6, 32))
    assert abs(float(samples(40, 7, 64).mean())) < 0.3


def entry(name: str, snr: float, integer: bool = True) -> Entry:
    return Entry(name, True, integer, {"snr_db": snr}, None, None)  # type: ignore[arg-type]


def chosen(snr_and_time: dict[str, tuple[float, float]], bar: float | None, quick: float) -> str:
    ours = [entry(name, snr, integer=name != "float") for name, (snr, _) in snr_and_time.items()]
    return _choose(ours, bar, {name: time for name, (_, time) in snr_and_time.items()}, quick).name


def test_ours_is_the_fastest_as_accurate_as_the_peers_best():
    ours = {"int8": (20, 0.5), "mixed": (25, 0.8), "float": (200, 1.0)}
    assert chosen(ours, 22, 0.6) == "mixed"
    assert chosen(ours, 22, 0.9) == "mixed"
    assert chosen(ours, 20.4, 0.6) == "int8"
    assert chosen(ours, None, 0.6) == "int8"


def test_where_no_integer_form_is_as_accurate_ours_is_float_if_no_peer_is_faster_else_the_fastest():
    ours = {"int8": (20, 0.9), "float": (200, 1.0)}
    assert chosen(ours, 30, 1.0) == "float"
    assert chosen(ours, 30, 0.95) == "int8"


def test_a_peer_is_matched_by_one_form_that_is_as_fast_and_as_accurate():
    def timed(name: str, snr: float, ratio: float) -> Entry:
        one = entry(name, snr)
        one.row["race_over_float"] = ratio
        return one

    ours = [timed("int8", 20, 0.5), timed("float", 100, 1.0)]
    others = [timed("slower", 20, 0.6), timed("between", 25, 0.8), timed("slow", 30, 1.1), timed("fast", 10, 0.4)]
    assert _unmatched(ours, others) == ["between", "fast"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_row_scores_ours_and_the_peers_on_samples_that_nobody_calibrated_on(backend: str, tmp_path: Path):
    files = make_files("tiny", make_tiny(), tmp_path, OPTIONS, size=32)
    row = measure_backend(files, backend, OPTIONS)
    assert UNKNOWN.keys() <= row.keys()
    assert row["proof"] == "ok"
    assert len(row["calibrations_tried_db"]) == len(SETTINGS)
    assert row["calibrated"] == max(row["calibrations_tried_db"], key=row["calibrations_tried_db"].get)
    assert row["integer"] == row["compute"] == 3
    assert row["integer_coverage"] == 1
    assert row["snr_db"] > 20
    names = {peer["name"]: peer for peer in row["peers"]}
    assert "quantize_static" in names
    assert ("nncf mixed" in names) == (backend == "openvino")
    assert not [peer for peer in row["peers"] if "error" in peer]
    assert row["peer_snr_db"] == max(peer["snr_db"] for peer in row["peers"])
    assert row["ours_over_best_peer"] is None
    assert row["ours"][-1]["name"] == "float"
    assert row["ours"][-1]["snr_db"] > 80


def test_rows_are_kept_in_a_file_and_errors_are_rows_that_are_tried_again(tmp_path: Path, monkeypatch):
    made: list[tuple[str, str]] = []

    def measure(files: str, backend: str, options: Options) -> dict:
        made.append((files, backend))
        if len(made) == 1:
            raise RuntimeError("no kernel")
        return {"model": files, "backend": backend, "builds": {}}

    monkeypatch.setattr(int8_forms, "make_network", lambda name, seed: name)
    monkeypatch.setattr(int8_forms, "make_files", lambda name, network, folder, options: name)
    monkeypatch.setattr(int8_forms, "measure_backend", measure)
    save = tmp_path / "results" / "rows.json"
    first = int8_forms.run(["a"], ["onnxruntime", "openvino"], OPTIONS, save)
    assert first["rows"][0]["error"] == "RuntimeError: no kernel"
    assert UNKNOWN.items() <= first["rows"][0].items()
    assert json.loads(save.read_text()) == json.loads(json.dumps(first))
    second = int8_forms.run(["a"], ["onnxruntime", "openvino"], OPTIONS, save)
    assert made == [("a", "onnxruntime"), ("a", "openvino"), ("a", "onnxruntime")]
    assert all("error" not in row for row in second["rows"])
    with pytest.raises(SystemExit, match="other settings"):
        int8_forms.run(["a"], ["openvino"], Options(seconds=1), save)


def test_rows_of_builds_have_the_fields_of_measured_ones(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rows, "BUILT_FOR", ())  # no form: what a row is made of is asked for, not the builder
    none = np.zeros(0)
    files = starts.NetworkFiles("tiny", tmp_path, none, none, none, "min-max", {}, "")
    built = measure_backend(files, "tensorrt-rtx", OPTIONS)
    assert (built["model"], built["backend"]) == ("tiny", "tensorrt-rtx")
    assert UNKNOWN.items() <= built.items()


@pytest.mark.slow
def test_the_fastest_two_meet_anew(tmp_path: Path):
    options = Options(seconds=2, pairs=2, calibration=18, held_out=18)
    files = make_files("tiny", make_tiny(), tmp_path, options, size=32)
    row = measure_backend(files, "onnxruntime", options)
    low, high = row["interval"]
    assert low <= row["ours_over_best_peer"] <= high
    assert math.isfinite(high)
    assert (row["profile"] is None) == (row["ours_over_best_peer"] <= 1)
    assert row["best_peer"] in {one["name"] for one in [*row["peers"], row["ours"][-1]]}
    assert all("race_over_float" in one for one in [*row["ours"], *row["peers"]])
