"""Signs and floors of an ONNX graph, by its structure."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from edgekd.quantize.signs import floors, nonnegative_values, signed_by_concatenation

HEAD = '<ir_version: 10, opset_import: ["" : 20]> g (float[N, 4, 8, 8] x, int64[8] pads, float[4] by) => (float y) '


def graph(body: str, constants: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD}<{constants}> {{ {body} }}" if constants else f"{HEAD}{{ {body} }}")


@pytest.mark.parametrize(("value", "kept"), [("0", True), ("2.5", True), ("-1", False)])
def test_padding_with_a_negative_number_ends_a_sign_and_a_floor(value: str, kept: bool) -> None:
    model = graph(
        "r = Relu(x) h = HardSwish(x) p = Pad(r, pads, v) q = Pad(h, pads, v) y = Add(p, q)", f"float v = {{{value}}}"
    )
    assert ("p" in nonnegative_values(model)) == kept
    assert ("q" in floors(model)) == kept


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_cubic_interpolation_goes_below_what_it_is_between(mode: str) -> None:
    model = graph(f'r = Relu(x) h = HardSwish(x) p = Resize<mode="{mode}">(r, , by) q = Resize<mode="{mode}">(h, , by) '
                  "y = Add(p, q)")  # fmt: skip
    assert ("p" in nonnegative_values(model)) == (mode == "linear")
    assert ("q" in floors(model)) == (mode == "linear")


def test_all_that_is_concatenated_with_a_signed_value_is_signed_also_elsewhere() -> None:
    """a is concatenated with b, and with the signed x: the first concatenation has one type too."""
    model = graph(
        "a = Relu(x) b = Sigmoid(x) c = Concat<axis=1>(a, b) d = Concat<axis=1>(a, x) m = Transpose(c) "
        "e = Abs(d) y = Concat<axis=1>(e, e)"
    )
    assert signed_by_concatenation(model, nonnegative_values(model)) == {"a", "b", "c", "m"}
