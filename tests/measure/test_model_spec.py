"""Specs as values that travel: JSON, stored arrays, a backend's own settings."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edgekd.backends import get_backend
from edgekd.forms import CompiledModel
from edgekd.measure import ModelSpec
from edgekd.measure.spec import load_arrays, save_arrays
from edgekd.target import load_target


def test_a_spec_survives_json(spec, tmp_path):
    full = replace(spec, threads=3, precision="bf16", cores=(0, 2), label="new", batch=4, shared=True).with_golden(
        {"logits": np.zeros((1, 2), np.float32)}, tmp_path, 0.5
    )
    for one in (spec, full):
        assert ModelSpec.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert full.name == "new"
    assert spec.name == "one.onnx"


def test_arrays_are_stored_as_they_are_and_shared_when_equal(tmp_path):
    arrays = {
        "scalar": np.array(3, np.int64),
        "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
        "none": np.zeros((0, 4), np.float32),
        "half": np.array([np.nan, np.inf], np.float16),
    }
    path = save_arrays(arrays, tmp_path / "new")
    for name, array in load_arrays(path).items():
        np.testing.assert_array_equal(array, arrays[name])
        assert (array.dtype, array.shape) == (arrays[name].dtype, arrays[name].shape)
        assert array.flags.c_contiguous
    assert save_arrays(dict(reversed(arrays.items())), tmp_path / "new") == path
    for other in (arrays | {"scalar": np.array(4)}, arrays | {"none": np.zeros((4, 0), np.float32)}):
        assert save_arrays(other, tmp_path / "new") != path
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_arrays(tmp_path / "bad.npz")


def test_the_spec_of_a_compiled_model_has_its_own_precision_and_its_targets_threads(spec, tmp_path):
    target = load_target("onnxruntime-cpu")
    model = CompiledModel("onnxruntime", spec.path, spec.path, {"inference_precision": "bf16"})
    made = ModelSpec.of(get_backend("onnxruntime"), model, target, {"input": np.zeros(3)}, tmp_path, cores=(1,))
    assert made.runtime == "onnxruntime"
    assert made.threads == target.runtime.threads
    assert made.precision == "bf16"
    assert made.label == spec.path.parent.name
    assert made.cores == (1,)
    np.testing.assert_array_equal(load_arrays(made.feeds)["input"], np.zeros(3))
