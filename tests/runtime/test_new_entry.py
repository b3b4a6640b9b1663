"""Whether figures taken here are the target's: its architecture, instruction set and board decide."""

from __future__ import annotations

import pytest

from edgekd.runtime import machine
from edgekd.runtime.measurements import new_entry

GRAVITON = {"arch": "aarch64", "isa": ["asimddp", "i8mm", "sve"], "board": None}
PI = {"arch": "aarch64", "isa": ["asimddp"], "board": "Raspberry Pi 5 Model B Rev 1.0"}
XEON = {"arch": "x86_64", "isa": ["avx2", "avx512bw", "avx512_vnni"], "board": None}


@pytest.mark.parametrize(
    ("target", "facts", "is_it"),
    [
        ({"arch": "host"}, GRAVITON, True),
        ({}, XEON, True),
        ({"arch": "x86_64"}, GRAVITON, False),
        ({"arch": "aarch64", "isa": "neon-dot", "board": "Raspberry Pi 5"}, PI, True),
        ({"arch": "aarch64", "isa": "neon-dot", "board": "Raspberry Pi 5"}, GRAVITON, False),
        ({"arch": "aarch64", "isa": "neon-dot", "board": None}, GRAVITON, True),
        ({"arch": "x86_64", "isa": "avx512-vnni"}, XEON, True),
        ({"arch": "x86_64", "isa": "amx"}, XEON, False),
        ({"arch": "host", "isa": "neon"}, XEON, False),
        ({"arch": "host", "isa": "host"}, XEON, True),
    ],
)
def test_on_target(monkeypatch: pytest.MonkeyPatch, target: dict, facts: dict, is_it: bool) -> None:
    monkeypatch.setattr(machine, "describe_machine", lambda: facts)
    assert new_entry({"target": {"name": "t", **target}}, "bench")["on_target"] is is_it
