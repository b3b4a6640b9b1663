"""Where sites stand behind operators without a rule, and which of them share a quantizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from rewritten_nets import Net, conv
from torch import Tensor
from torch.nn import functional as F
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.quantize import Prepared, prepare


def sited(made: Prepared) -> dict[str, FakeQuantizeBase]:
    """The quantizer behind each value, weights aside."""
    return {
        node.args[0].name: made.module.get_submodule(node.target)
        for node in made.module.graph.nodes
        if node.op == "call_module" and node.args[0].op != "get_attr"
    }


def prepared(run: Callable[[Net, Tensor], Tensor]) -> Prepared:
    net = Net(run, a=conv(4, 4, 3), b=conv(4, 4, 3))
    return prepare(net.eval(), torch.randn(2, 4, 6, 6))


def test_what_no_layer_reads_has_no_site() -> None:
    made = prepared(lambda m, x: m.b(F.relu(m.a(x).atan().sinh())) + x.asinh().mean())
    assert not {"atan", "sinh", "asinh"} & sited(made).keys()
    assert made.without_rule == {"asinh": 1, "atan": 1, "mean": 1, "sinh": 1}


def test_what_layers_read_has_one_through_all_that_moves_it() -> None:
    made = prepared(lambda m, x: m.b(F.max_pool2d(m.a(x).atan().transpose(2, 3), 2)))
    found = sited(made)
    assert found["atan"] is found["transpose"] is found["max_pool2d"]


def test_a_division_is_read_where_a_product_takes_it() -> None:
    found = sited(prepared(lambda m, x: m.b(F.relu(m.a(x)) @ x.div(3)) + x.div(7)))
    assert "div" in found
    assert "div_1" not in found


def test_what_hides_scores_of_attention_has_none() -> None:
    found = sited(prepared(lambda m, x: m.b(F.scaled_dot_product_attention(x, x.exp(), x, x.atan() * 9))))
    assert "exp" in found
    assert "atan" not in found


@pytest.mark.parametrize("copy", [Tensor.detach, Tensor.float, Tensor.clone])
def test_copies_share_the_quantizer(copy: Callable[[Tensor], Tensor]) -> None:
    """Two that are trained apart would round twice."""
    made = prepared(lambda m, x: m.b(copy(F.relu(m.a(x)))))
    found = sited(made)
    (name,) = found.keys() & {"detach", "detach_", "to", "clone"}
    assert found[name] is found["relu"]
