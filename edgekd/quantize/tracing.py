"""torch.export with a dynamic batch; of a network that it cannot trace: which operator, which line, what to try."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.overrides import TorchFunctionMode, resolve_name

from edgekd.errors import BadModel
from edgekd.quantize.names import BATCH

TORCH = str(Path(torch.__file__).parent)
# What torch says, what it means, and what to try; the first that fits.
CAUSES = (
    (
        (".numpy()", "numpy"),
        "it leaves torch for numpy",
        "compute it with torch's own functions: what is done in numpy is in no exported network",
    ),
    (
        ("data-dependent", "Data-dependent", "data dependent"),
        "Python goes one way or another by the values of a tensor",
        "compute both and choose with torch.where (or torch.cond); take no .item(), int() or bool() of a tensor to "
        "decide with, nor to count a loop",
    ),
    (
        ("Constraints violated", "specialized"),
        "it works for a batch of the one size that it was traced with",
        "keep the batch dimension free: -1 or x.shape[0] in place of a number, no loop over samples, no buffer of a "
        "batch's size",
    ),
)
OTHERWISE = "torch.export takes tensor operators and Python that does not depend on values; mend this line"


def export(module: nn.Module, example: Tensor) -> Any:
    """``module`` as torch.export's program, of any batch; ``example`` is (2, ...) float32.

    Raises:
        BadModel: it cannot be traced; names the operator, the line and the way out.
    """
    try:
        return _export(module, example)
    except Exception as error:
        raise _told(error, module, example) from error


def line_of(node: Node) -> str:
    """The line of the network's own code that made a node, as far as torch noted it; else the node's name."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    return next((line for line in reversed(lines) if line.startswith("File ") and TORCH not in line), node.name)


def no_onnx_form(error: Exception, program: Any) -> BadModel:
    """What torch.onnx.export's ``error`` says of ``program``: the operator that ONNX has no form of, and its line."""
    said = str(error)
    found = re.search(r"translating node %(\w+).*?target=(?:torch\.ops\.)?([\w.]+?)(?:\.default)?\]", said)
    if found is None:
        told, where = f"it cannot be written as ONNX: {said.strip().splitlines()[-1]}", ""
    else:
        told = f"ONNX has no form of {found[2]}"
        # The node may be a part of an operator of the network's code.
        nodes = program.run_decompositions().graph.nodes
        where = next((line_of(node) for node in nodes if node.name == found[1]), "")
    return BadModel(told, where=where, remedy="compute it with other operators, or leave it to what uses the model")


def _export(module: nn.Module, example: Tensor) -> Any:
    said = io.StringIO()
    # A graph that is not finished is printed before the error: its line is all that a person wants of it.
    with contextlib.redirect_stderr(said):
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim(BATCH)},))
    sys.stderr.write(said.getvalue())
    return program


def _told(error: Exception, module: nn.Module, example: Tensor) -> BadModel:
    """The error as a user can act on it."""
    watch = _Watch()
    # Traced once more, watched: under a watch the graph's own notes of its lines would be the watch's.
    with contextlib.suppress(Exception), watch.batch_of(module), watch:
        _export(module, example)
    said = str(error).strip() or type(error).__name__
    cause, remedy = next(
        ((cause, remedy) for signs, cause, remedy in CAUSES if any(sign in said for sign in signs)), ("", OTHERWISE)
    )
    line = _user_line(traceback.extract_tb(error.__traceback__)) or watch.line
    code = f" in `{line.line}`" if line is not None and line.line else ""
    at = f", at {watch.operator}{code}" if watch.operator else code
    # Torch's own words end where its advice to run it otherwise begins.
    words = said.splitlines()[0].split("  (")[0].removesuffix(' For more information, run with TORCH_LOGS="+dynamic".')
    return BadModel(
        f"torch.export cannot trace it: {cause}{at} ({words})"
        if cause
        else f"torch.export cannot trace it{at}: {words}",
        where=f'File "{line.filename}", line {line.lineno}, in {line.name}' if line else type(module).__name__,
        remedy=remedy,
    )


class _Watch(TorchFunctionMode):
    """Remembers the last operator that was called, and its line: up to where the batch's size became a number."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = ""
        self.line: traceback.FrameSummary | None = None
        self._batch: Any = None
        self._over = False

    @contextlib.contextmanager
    def batch_of(self, module: nn.Module) -> Iterator[None]:
        """Inside, the size of the batch that ``module`` is traced with is known to the watch."""

        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._batch = inputs[0].shape[0]

        handle = module.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # What torch calls for itself, such as its switches on the way out of an error, has no public name.
        name, line = resolve_name(func), None if self._over else _user_line(traceback.extract_stack())
        if name is not None and line is not None:
            self.operator, self.line = name, line
        result = func(*args, **(kwargs or {}))
        self._over |= isinstance(self._batch, torch.SymInt) and self._batch.node.maybe_as_int() is not None
        return result


def _user_line(frames: Iterable[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    """The innermost line of the network's own code: behind the call of torch.export, and not torch's."""
    inside, found = False, None
    for frame in frames:
        if frame.filename.startswith(TORCH):
            inside = True
        elif inside and frame.filename != __file__ and Path(frame.filename).is_file():
            found = frame
    return found
