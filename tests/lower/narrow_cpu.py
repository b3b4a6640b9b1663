"""The runtimes on a CPU without VNNI, in a process of its own; run as a program it is that process.

OpenVINO's oneDNN takes the instruction set from ONEDNN_MAX_CPU_ISA. ONNX Runtime asks the CPU itself, so where that has
VNNI it runs under qemu (Debian's qemu-user) as a Haswell, some ten times slower.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

# What OpenVINO can be held to, with the flag of /proc/cpuinfo that it needs.
ISAS = {"AVX2": "avx2", "AVX512_CORE": "avx512bw"}


def has_vnni() -> bool:
    # Here and below: the program in the other process imports the runtime alone.
    from edgekd.runtime.machine import VNNI, best_isa

    return best_isa() in VNNI


def run_jobs(runtime: str, isa: str, folder: Path) -> dict[str, np.ndarray]:
    """First outputs of every ``folder``/NAME.onnx for NAME.npy, by name, on a CPU with no more than ``isa``."""
    import pytest

    from edgekd.runtime.machine import describe_machine

    if ISAS[isa] not in describe_machine()["isa"]:
        pytest.skip(f"no x86 CPU with {ISAS[isa]}")
    command = [sys.executable]
    if runtime == "onnxruntime" and has_vnni():
        qemu = shutil.which("qemu-x86_64")
        if qemu is None:
            pytest.skip("this CPU has VNNI, and qemu-x86_64 (Debian package qemu-user) is not installed")
        command = [qemu, "-cpu", "Haswell", os.path.realpath(sys.executable)]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "PYTHONPATH": sysconfig.get_path("purelib")}
    done = subprocess.run(
        [*command, __file__, runtime, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {path.name.removesuffix(".out.npy"): np.load(path) for path in folder.glob("*.out.npy")}
    for path in folder.glob("*.out.npy"):
        path.unlink()
    return found


def main(runtime: str, folder: Path) -> None:
    for path in sorted(folder.glob("*.onnx")):
        x = np.load(path.with_suffix(".npy"))
        if runtime == "openvino":
            import openvino

            core = openvino.Core()
            model = core.read_model(path)
            model.reshape([1, *x.shape[1:]])
            hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
            compiled = core.compile_model(model, "CPU", hints)
            outputs = [compiled(x[i : i + 1])[0].copy() for i in range(len(x))]
        else:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            outputs = [session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]
        np.save(path.with_suffix(".out.npy"), np.concatenate(outputs))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
