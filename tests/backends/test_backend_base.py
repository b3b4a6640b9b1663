import json
import subprocess
import sys

import pytest
from tiny_networks import Builder

from edgekd.backends import get_backend, list_backends
from edgekd.backends.base import FORM_KEY, integer_forms, place, precision_of, runtime_errors
from edgekd.backends.onnxruntime import X86
from edgekd.errors import BadModel, ExitCode, Missing, ProofFailed
from edgekd.runtime.sessions import RuntimeMissing, SessionError


def test_backends_are_found_by_entry_point():
    assert [backend.name for backend in list_backends()] == ["onnxruntime", "openvino", "tensorrt"]
    assert get_backend("openvino").probe().ok


def test_unknown_backend_exits_5_and_names_the_installed():
    with pytest.raises(Missing, match="onnxruntime, openvino, tensorrt") as caught:
        get_backend("coreml")
    assert caught.value.exit_code == ExitCode.MISSING


def test_importing_backends_imports_no_runtime():
    code = (
        "import sys; from edgekd.backends import list_backends; list_backends(); "
        "print([name for name in ('onnxruntime', 'openvino', 'tensorrt_rtx_bindings', 'onnx', 'torch') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_runtime_becomes_missing_with_the_install_line():
    with pytest.raises(Missing, match="pip install x"), runtime_errors():
        raise RuntimeMissing("x is not installed", "pip install x")


def test_refused_file_is_a_bad_model_or_a_failed_proof():
    with pytest.raises(BadModel), runtime_errors():
        raise SessionError("no")
    with pytest.raises(ProofFailed) as caught, runtime_errors(proving=True):
        raise SessionError("no")
    assert "an operator of your network" in caught.value.remedy


def test_integer_forms_with_and_without_vnni():
    names = [form.name for form in integer_forms(X86, vnni=True)]
    assert names == ["int8", "int8-float-gates", "int8-float-attention", "int8-float-ends"]
    without = integer_forms(X86, vnni=False)
    assert {form.cure for form in without} == {"cheaper"}


def test_place_copies_once(tmp_path):
    source = tmp_path / "a.onnx"
    source.write_bytes(b"x")
    assert place(source, tmp_path) == source
    (tmp_path / "out").mkdir()
    assert place(source, tmp_path / "out").read_bytes() == b"x"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.onnx"]


def test_precision_is_the_forms_or_noted_in_the_file_or_the_targets(tmp_path):
    plain = Builder("float").save(tmp_path / "plain.onnx")
    noted = Builder("float").save(tmp_path / "noted.onnx", metadata={FORM_KEY: json.dumps({"float_type": "bf16"})})
    assert precision_of(plain, None, "f32") == "f32"
    assert precision_of(plain, None, "bf16") == "bf16"
    assert precision_of(noted, None, "f32") == "bf16"
    assert precision_of(noted, X86, "f32") == "f32"
