"""The TensorRT session's own logic against a stand-in for the library and the GPU; real engines: -m gpu."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.runtime import session_tensorrt
from edgekd.runtime.sessions import RuntimeMissing, SessionError, TensorSpec, open_session


class HostCuda:
    """CUDA's calls on host memory; counts what is held."""

    devices = 1

    def __init__(self):
        self.held = {}
        self.runs = 0

    def device_count(self):
        return self.devices

    def stream(self):
        return 7

    def destroy_stream(self, stream):
        assert stream == 7

    def malloc(self, size):
        buffer = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free(self, address):
        del self.held[address]

    def copy(self, target, source, size, *, to_device, stream):
        ctypes.memmove(target, source, size)

    def synchronize(self, stream):
        self.runs += 1


class Context:
    """Doubles its input (profile 1..4, three features)."""

    def __init__(self):
        self.batch, self.addresses, self.ok = 0, {}, True

    def set_input_shape(self, name, shape):
        self.batch = shape[0]
        return 1 <= shape[0] <= 4

    def get_tensor_shape(self, name):
        return (self.batch, 3)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        size = self.batch * 3
        source = (ctypes.c_float * size).from_address(self.addresses["input"])
        target = (ctypes.c_float * size).from_address(self.addresses["logits"])
        target[:] = [2 * value for value in source]
        return self.ok


@pytest.fixture
def opened(tmp_path, monkeypatch):
    context = Context()
    engine = SimpleNamespace(
        num_io_tensors=2,
        create_execution_context=lambda: context,
        get_tensor_name=lambda index: ["input", "logits"][index],
        get_tensor_mode=lambda name: name == "input",
        get_tensor_shape=lambda name: (-1, 3),
        get_tensor_dtype=lambda name: "float",
        get_tensor_profile_shape=lambda name, index: ((1, 3), (1, 3), (4, 3)),
    )
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine if data == b"engine" else None)
    module = SimpleNamespace(
        __version__="10.3.0",
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT=True),
        nptype=lambda kind: np.float32,
    )
    monkeypatch.setattr(session_tensorrt, "load_tensorrt", lambda flavor: module)
    monkeypatch.setattr(session_tensorrt, "make_logger", lambda flavor: SimpleNamespace(errors=lambda: "boom"))
    monkeypatch.setattr(session_tensorrt, "Cuda", HostCuda)
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    return open_session(path, "tensorrt", threads=1), context


def test_runs_any_batch_in_parts_of_the_profile(opened):
    session, _ = opened
    assert session.inputs == [TensorSpec("input", (None, 3), "float32")]
    assert [spec.name for spec in session.outputs] == ["logits"]
    for size in (1, 4, 2, 9, 8, 1):
        x = np.random.default_rng(size).normal(size=(size, 3)).astype(np.float32)
        np.testing.assert_array_equal(session.run({"input": x})["logits"], 2 * x)


def test_memory_grows_with_the_batch_and_does_not_leak(opened):
    session, _ = opened
    for size in (1, 4, 1, 2):
        session.run({"input": np.ones((size, 3), np.float32)})
    held = session._cuda.held.values()
    assert [ctypes.sizeof(buffer) for buffer in held] == [48, 48]
    session.__del__()
    assert not session._cuda.held


def test_wrong_inputs_and_failed_runs_are_errors(opened):
    session, context = opened
    with pytest.raises(SessionError, match="is missing"):
        session.run({})
    with pytest.raises(SessionError, match="float64"):
        session.run({"input": np.ones((1, 3))})
    context.ok = False
    with pytest.raises(SessionError, match="boom"):
        session.run({"input": np.ones((1, 3), np.float32)})


def test_an_engine_of_another_gpu_says_so(opened, tmp_path):
    (tmp_path / "other.engine").write_bytes(b"other")
    with pytest.raises(SessionError, match="build it again here"):
        open_session(tmp_path / "other.engine", "tensorrt", threads=1)


def test_no_gpu_is_missing(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(HostCuda, "devices", 0)
    with pytest.raises(RuntimeMissing, match="no NVIDIA GPU"):
        open_session(tmp_path / "model.engine", "tensorrt", threads=1)


def test_description(opened):
    assert opened[0].describe() == {
        "runtime": "tensorrt",
        "version": "10.3.0",
        "inference_precision": "f32",
        "threads": None,
    }
