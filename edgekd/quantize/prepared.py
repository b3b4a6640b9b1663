"""A float network with fake-quantize modules at every site: one object for calibration, training and conversion."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantizeBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgekd.quantize.calibrate import calibrate
from edgekd.quantize.clipping import Steps
from edgekd.quantize.names import OUTPUT
from edgekd.quantize.observers import count_places, observes_weight
from edgekd.quantize.rewrite import rewrite
from edgekd.quantize.sites import StrictQuantizer
from edgekd.quantize.tracing import export
from edgekd.target import CalibrationPolicy

DEFAULT = CalibrationPolicy()


def prepare(student: nn.Module, example: Tensor, *, policy: CalibrationPolicy = DEFAULT) -> Prepared:
    """Export ``student`` in evaluation mode with a dynamic batch, fold BatchNorm, and put in the quantizers.

    ``example`` is (2, ...) float32; ``policy`` says how ranges are estimated. Raises:
        BadModel: torch.export cannot trace the network, or it writes into shared memory; told with the place.
    """
    student.eval()
    exported = export(student, example)
    quantizer = StrictQuantizer(policy.averaging)
    prepared = prepare_pt2e(rewrite(exported.module()), quantizer)
    count_places(prepared)
    return Prepared(prepared, policy, quantizer.without_rule)


class Prepared:
    """``module`` trains like any other; observers and quantizers are switched from here.

    ``notes``: what calibration found that a person should know, a sentence each. ``without_rule``: the operators that
    no rule knows, which stay float, and how many there are of each.
    """

    def __init__(self, module: GraphModule, policy: CalibrationPolicy, without_rule: Mapping[str, int]) -> None:
        self.module, self.policy, self.without_rule = module, policy, dict(without_rule)
        self.notes: tuple[str, ...] = ()
        # BatchNorm folding leaves weights that do not ask for gradients.
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def quantizers(self) -> Iterator[tuple[str, FakeQuantizeBase]]:
        """All fake-quantize modules by name, each once."""
        for name, module in self.module.named_modules():
            if isinstance(module, FakeQuantizeBase):
                yield name, module

    def observe(self, on: bool) -> None:
        """Switch whether ranges follow what flows through."""
        for _, quantizer in self.quantizers():
            quantizer.enable_observer(on)

    def fake_quantize(self, on: bool) -> None:
        """Switch whether values are rounded."""
        for _, quantizer in self.quantizers():
            quantizer.enable_fake_quant(on)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Ranges stand still inside: what is evaluated on must not be calibrated on."""
        states = [(quantizer, bool(quantizer.observer_enabled[0])) for _, quantizer in self.quantizers()]
        self.observe(False)
        try:
            yield
        finally:
            for quantizer, on in states:
                quantizer.enable_observer(on)

    @contextmanager
    def floating(self, *, weights: bool = True) -> Iterator[None]:
        """Nothing is rounded inside; with ``weights`` False no activation is."""
        states = [
            (quantizer, bool(quantizer.fake_quant_enabled[0]))
            for _, quantizer in self.quantizers()
            if weights or not observes_weight(quantizer)
        ]
        for quantizer, _ in states:
            quantizer.enable_fake_quant(False)
        try:
            yield
        finally:
            for quantizer, on in states:
                quantizer.enable_fake_quant(on)

    def copy(self) -> Prepared:
        """Another one of the same state, weights included."""
        other = Prepared(copy.deepcopy(self.module), self.policy, self.without_rule)
        other.notes = self.notes
        return other

    def calibrate(self, batches: Iterable[Tensor], steps: Mapping[str, Steps] | None = None) -> None:
        """Set all ranges from ``batches`` of the float network, (B, ...) float32 each, then quantize with them.

        Where an estimator searches for the best grid, ``steps`` are those of quantizers whose grid is not the strict
        one, by name. What comes out does not depend on how samples are split into ``batches``. Raises:
            BadData: NaN or infinity reaches a site, or there are no samples.
        """
        places = self._places()
        self.observe(False)
        self.fake_quantize(False)
        try:
            with torch.no_grad():
                self.notes = calibrate(self.module, batches, self.policy, places, steps or {})
        finally:
            self.observe(False)
            self.fake_quantize(True)

    def _places(self) -> dict[str, str]:
        """Each quantizer's name, in the order of the graph, and its place as a user knows it."""
        names: dict[FakeQuantizeBase, str] = {module: name for name, module in self.quantizers()}
        found: dict[str, str] = {}
        for node in self.module.graph.nodes:
            quantizer = self.module.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(quantizer, FakeQuantizeBase):
                found.setdefault(names[quantizer], _tell(node.args[0]))
        return found

    def run_float(self, x: np.ndarray) -> np.ndarray:
        """Outputs with all quantizers off: must equal the float network's."""
        with self.floating():
            return self._run(x)

    def run_quantized(self, x: np.ndarray) -> np.ndarray:
        """Outputs of the fake-quantized network."""
        return self._run(x)

    def converted(self) -> GraphModule:
        """A copy with quantize and dequantize operators in place of the modules, weights still float."""
        converted: GraphModule = convert_pt2e(copy.deepcopy(self.module), fold_quantize=False)
        for module in converted.modules():
            module.training = False  # it has no such switch, but torch asks
        return converted

    def intermediates(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every float value of the converted graph for ``x`` by its name, which the master's values share."""
        found: dict[str, np.ndarray] = {}
        converted = self.converted()
        (output,) = converted.graph.output_node().all_input_nodes

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                value = super().run_node(n)
                if isinstance(value, Tensor) and value.is_floating_point() and n.op == "call_function":
                    found[OUTPUT if n is output else n.name] = value.numpy().copy()
                return value

        with torch.no_grad():
            Recorder(converted).run(torch.from_numpy(x))
        return found

    def _run(self, x: np.ndarray) -> np.ndarray:
        with self.frozen(), torch.no_grad():
            return self.module(torch.from_numpy(x)).numpy()


def _tell(node: Node) -> str:
    """A value as its user knows it: a weight by its name, another by the module that makes it."""
    if node.op == "placeholder":
        return "the network's input"
    if node.op == "get_attr":
        return str(node.target)
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    return f"{node.name} in {modules[-1][0]}" if modules and modules[-1][0] else node.name
