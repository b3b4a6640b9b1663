"""Building TensorRT engines from ONNX: on a device by `finalize`, at build time as the proof that it will work there.

Sources: TensorRT's Python API (10.3 to 11) and TensorRT-RTX 1.x. What differs between them is decided here by asking
the module, never by its version number alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .bundle_files import write_atomically
from .sessions import SessionError
from .tensorrt_api import Flavor, load_tensorrt, make_logger, strongly_typed_only

Typing = Literal["auto", "strong", "weak"]


class BuildFailed(SessionError):
    """TensorRT's parser or builder refuses the ONNX file; the message is TensorRT's own, with the node."""


class EngineReport(NamedTuple):
    """What `build_engine` made: sizes in bytes, time in seconds, layers as the network has them before fusion."""

    builder: str
    version: str
    typing: str
    seconds: float
    size_bytes: int
    layers: int
    compute_capabilities: list[str]


def build_engine(
    onnx: Path,
    engine: Path | None,
    flavor: Flavor,
    *,
    max_batch: int = 64,
    workspace_mb: int = 1024,
    typing: Typing = "auto",
    compute_capabilities: Sequence[str] = (),
    timing_cache: Path | None = None,
) -> EngineReport:
    """Parse ``onnx`` and build its engine.

    Args:
        onnx: the lowered file; its first dimension may be dynamic (the batch), others not.
        engine: where the engine is written (atomically); None only proves that it can be built.
        flavor: which library builds it. ``tensorrt`` needs the GPU that will run it; ``tensorrt-rtx`` none.
        max_batch: the profile goes from 1 to here and is tuned for 1: edge models run one sample at a time.
        workspace_mb: most scratch memory a layer may ask for, in MiB.
        typing: "strong" takes the file's types as law (all that TensorRT 11 and RTX know), "weak" sets INT8 and
            FP16 flags; "auto" is strong, and weak only where strong does not exist or fails to build.
        compute_capabilities: RTX only: GPUs to build for, such as ["8.6", "8.9"]; empty: the GPU at hand, or
            "8.6" without one.
        timing_cache: TensorRT only: a file of kernel timings, read and written, that makes rebuilding fast.

    Raises:
        RuntimeMissing: the flavor is not installed.
        BuildFailed: the parser or the builder refuses.
    """
    trt = load_tensorrt(flavor)
    started = time.perf_counter()
    ways = _ways(trt, typing)
    for way in ways:
        try:
            data, layers, capabilities = _build(
                trt, flavor, onnx, way, max_batch, workspace_mb, compute_capabilities, timing_cache
            )
            break
        except BuildFailed:
            if way == ways[-1]:
                raise
    if engine is not None:
        write_atomically(engine, data)
    return EngineReport(
        builder=flavor,
        version=str(trt.__version__),
        typing=way,
        seconds=time.perf_counter() - started,
        size_bytes=len(data),
        layers=layers,
        compute_capabilities=capabilities,
    )


def _ways(trt: Any, typing: Typing) -> list[str]:
    if strongly_typed_only(trt):
        if typing == "weak":
            raise BuildFailed(f"{trt.__name__} {trt.__version__} has strongly typed networks only")
        return ["strong"]
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return ["weak"]
    return ["strong", "weak"] if typing == "auto" else [typing]


def _build(
    trt: Any,
    flavor: Flavor,
    onnx: Path,
    way: str,
    max_batch: int,
    workspace_mb: int,
    compute_capabilities: Sequence[str],
    timing_cache: Path | None,
) -> tuple[bytes, int, list[str]]:
    logger = make_logger(flavor)
    logger.lines = []
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, way))
    _parse(trt, network, logger, onnx)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if way == "weak":
        _set_weak_flags(trt, config, network)
    _add_profile(builder, config, network, onnx, max_batch)
    capabilities = _set_capabilities(trt, flavor, config, compute_capabilities)
    cache = _load_timing_cache(config, timing_cache) if flavor == "tensorrt" else None
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed(f"{flavor} {trt.__version__} cannot build {onnx}: {logger.errors() or 'no reason given'}")
    if cache is not None and timing_cache is not None:
        write_atomically(timing_cache, bytes(cache.serialize()))
    return bytes(plan), network.num_layers, capabilities


def _network_flags(trt: Any, way: str) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 0
    # 8.x wants it said; from 10 on it is the only kind there is (and the flag is deprecated, then gone).
    if int(str(trt.__version__).split(".")[0]) == 8:
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if way == "strong" and hasattr(kinds, "STRONGLY_TYPED"):
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return flags


def _parse(trt: Any, network: Any, logger: Any, onnx: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(onnx)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = []
    for error in errors:
        node = " ".join(part for part in (_ask(error, "node_operator"), _ask(error, "node_name")) if part)
        lines.append(f"{node}: {error.desc()}" if node else str(error.desc()))
    raise BuildFailed(
        f"{trt.__name__} {trt.__version__} refuses {onnx}: "
        + ("; ".join(lines) or logger.errors() or "no reason given")
    )


def _ask(error: Any, method: str) -> str:
    try:
        return str(getattr(error, method)())
    except AttributeError:  # older parsers know only the node's number
        return ""


def _set_weak_flags(trt: Any, config: Any, network: Any) -> None:
    """INT8 where the file has Q/DQ, FP16 where it has half-precision tensors."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    if any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
        config.set_flag(trt.BuilderFlag.INT8)
    outputs = [layer.get_output(index) for layer in layers for index in range(layer.num_outputs)]
    if any(output is not None and output.dtype == trt.float16 for output in outputs):
        config.set_flag(trt.BuilderFlag.FP16)


def _add_profile(builder: Any, config: Any, network: Any, onnx: Path, max_batch: int) -> None:
    profile, dynamic = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise BuildFailed(f"{onnx}: input {tensor.name!r} has dynamic sizes besides the batch: {shape}")
        if shape and shape[0] == -1:
            dynamic = True
            profile.set_shape(tensor.name, (1, *shape[1:]), (1, *shape[1:]), (max_batch, *shape[1:]))
    if dynamic:
        config.add_optimization_profile(profile)


def _set_capabilities(trt: Any, flavor: Flavor, config: Any, wanted: Sequence[str]) -> list[str]:
    if flavor != "tensorrt-rtx":
        return []
    from .tensorrt_api import has_gpu

    known = trt.ComputeCapability
    names = list(wanted)
    if not names:
        if has_gpu():
            return []
        names = ["8.6"]
    missing = [name for name in names if not hasattr(known, "SM" + name.replace(".", ""))]
    if missing:
        offered = sorted(name for name in dir(known) if name.startswith("SM"))
        raise BuildFailed(
            f"TensorRT-RTX {trt.__version__} does not build for compute capability {', '.join(missing)}; "
            f"it knows {', '.join(offered)}"
        )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(known, "SM" + name.replace(".", "")), index)
    return names


def _load_timing_cache(config: Any, path: Path | None) -> Any:
    """A cache that the build fills; a file of another GPU or version is ignored by TensorRT and replaced."""
    if path is None:
        return None
    cache = None
    with suppress(Exception):
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None:
        cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache
