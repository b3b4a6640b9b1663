"""What the runtimes' profiles share: how often a model is run, and what a kernel's name says of the ONNX file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edgekd.errors import missing_package

# A profile runs the model this often unseen, then this often or this long; each kernel's time is its median.
WARM, RUNS, SECONDS = 3, 40, 1.0


def run_often(run: Callable[[], object]) -> int:
    """Call ``run`` for a profile; how often it was called after the first `WARM` times."""
    for _ in range(WARM):
        run()
    end = time.monotonic() + SECONDS
    count = 0
    while count < RUNS and (count < 3 or time.monotonic() < end):
        run()
        count += 1
    return count


class Names:
    """The values of an ONNX file by the names that kernels go by.

    ONNX Runtime keeps a node's name through fusion, with a mark of its own behind (``_token_7``), or names a kernel
    after the value that it computes (``relu_nchwc``); what it splits or inserts (``HardSigmoid_213``, ``Transpose``)
    has a new name. OpenVINO tells for every kernel the nodes that it was made of, some with a part behind
    (``/WithoutBiases``). A file in OpenVINO's own format has none: its values are not those of an ONNX file.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnx
        except ImportError as error:
            raise missing_package("onnx, which reads the compiled file,", "build") from error
        nodes = [] if path.suffix == ".xml" else onnx.load(str(path), load_external_data=False).graph.node
        self._values = {value: value for node in nodes for value in node.output}
        self._values |= {node.name: node.output[0] for node in nodes if node.name}

    def values(self, kernels: Iterable[str]) -> tuple[str, ...]:
        """What kernels of these names compute, each value once; none where a name is not of the file."""
        found = (self._values.get(name) for kernel in kernels for name in _spellings(kernel))
        return tuple(dict.fromkeys(value for value in found if value is not None))


def _spellings(name: str) -> list[str]:
    bare = re.sub(r"(_token_\d+)+$", "", name.strip().removeprefix("fused "))
    return [name, bare, re.sub(r"_(nchwc|nhwc)$", "", bare), name.split("/")[0]]
