"""Int8 files of one float network by the tools that backends recommend, at their best documented settings for this CPU.

`quantize_static` (ONNX Runtime): after `quant_pre_process`; Q/DQ, uint8 activations, int8 weights, per channel and, as
its documentation calls faster, per tensor; ``reduce_range`` where the CPU has no VNNI, as it says; for networks with
attention also with matrix products and convolutions alone. NNCF (OpenVINO): presets performance and mixed,
``ModelType.TRANSFORMER`` for networks with attention, target device CPU, everything else as its defaults, and where the
CPU has no VNNI also with the overflow fix for all layers. Both start from a float file that edgekd exports, whose
graph is already in the spelling that backends like, which can only help them; its linear branches are as the network
has them, since merged ones may quantize badly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.runtime.session_openvino import openvino_core

ATTENTION = ("swin_t", "vit_b_16", "efficientformerv2_s0")
# NNCF's own name for networks whose quantization scheme is that of transformers.
TRANSFORMERS = ("swin_t", "vit_b_16")


def peer_makers(network: str, runtime: str, *, vnni: bool) -> dict[str, Callable[[Path, np.ndarray, Path], Path]]:
    """By name, what makes an int8 file for ``runtime`` of (the float ONNX file, samples (N, ...), an empty folder).

    OpenVINO also runs what `quantize_static` writes, and often faster than what its own tool writes.
    """
    static: dict[str, dict[str, Any]] = {
        "quantize_static": {"per_channel": True},
        "quantize_static per tensor": {"per_channel": False},
    }
    if network in ATTENTION:
        static["quantize_static weighted layers"] = {
            "per_channel": True,
            "op_types_to_quantize": ["Conv", "Gemm", "MatMul"],
            "extra_options": {"MatMulConstBOnly": True},
        }
    makers: dict[str, Callable[[Path, np.ndarray, Path], Path]] = {}
    for name, settings in static.items():
        makers[name] = _static_maker(settings | {"reduce_range": not vnni})
    if runtime == "openvino":
        for preset in ("PERFORMANCE", "MIXED"):
            for fix in (None,) if vnni else (None, "ENABLE"):
                name = f"nncf {preset.lower()}" + (" overflow fix" if fix else "")
                makers[name] = _nncf_maker(preset, network in TRANSFORMERS, fix)
    return makers


def _static_maker(settings: dict[str, Any]) -> Callable[[Path, np.ndarray, Path], Path]:
    def make(source: Path, calibration: np.ndarray, folder: Path) -> Path:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self.left: Iterator[np.ndarray] = iter(calibration)

            def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
                sample = next(self.left, None)
                return None if sample is None else {"input": sample[None]}

        source, prepared, path = source.absolute(), folder.absolute() / "prepared.onnx", folder / "model.onnx"
        with contextlib.chdir(folder):  # it leaves files where it stops
            try:
                quant_pre_process(source, prepared)
            except Exception:  # what its message advises where its symbolic shape inference stops
                quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **settings,
        )
        prepared.unlink()
        return path

    return make


def _nncf_maker(preset: str, transformer: bool, fix: str | None) -> Callable[[Path, np.ndarray, Path], Path]:
    def make(source: Path, calibration: np.ndarray, folder: Path) -> Path:
        import nncf
        import openvino

        more = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix[fix]) if fix else None
        quantized = nncf.quantize(
            openvino_core().read_model(source),
            nncf.Dataset([sample[None] for sample in calibration]),
            preset=nncf.QuantizationPreset[preset],
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration),
            advanced_parameters=more,
        )
        path = folder / "model.xml"
        openvino.save_model(quantized, path, compress_to_fp16=False)
        return path

    return make
