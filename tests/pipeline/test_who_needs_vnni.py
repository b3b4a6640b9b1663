"""What a bundle tells of its candidates: which of them a CPU that saturates would compute wrongly."""

from __future__ import annotations

import pytest

from edgekd.backends import get_backend
from edgekd.pipeline.bundle import needs_vnni
from edgekd.target import Target, load_target


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("where", "needed"),
    [
        ({"arch": "x86_64", "isa": "avx2"}, False),
        ({"arch": "x86_64", "isa": "avx512-vnni"}, True),
        # Its codes become unsigned bytes on x86, and their products saturate there like others.
        ({"arch": "aarch64", "isa": "neon-dot"}, True),
    ],
)
def test_integers_without_a_cure_do(backend, where, needed):
    target = Target(name="t", backend=backend, **where)
    forms = get_backend(backend).candidates(target)
    assert {form.integer for form in forms} == {True, False}
    for form in forms:
        assert needs_vnni(target, form.to_json()) is (needed and form.integer)


def test_engines_of_a_gpu_do_not():
    target = load_target("jetson")
    assert not any(needs_vnni(target, form.to_json()) for form in get_backend("tensorrt").candidates(target))
