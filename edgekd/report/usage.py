"""How to use a bundle on its device: what its own runtime, which travels inside it, offers."""

from __future__ import annotations

from edgekd.report.evidence import Evidence

EXAMPLE = """\
import sys; sys.path.insert(0, "runtime/python")
import numpy as np
from edgekd_runtime.model import Model
model = Model.load(".")
print(model.predict([np.load("SAMPLE.npy")])[0].label)"""


def commands(evidence: Evidence) -> list[tuple[str, str]]:
    """Shell commands to run inside the bundle's folder, each with what it does; the one that is due comes first."""
    found = [
        ("python runtime/python verify", "checks every hash and the golden outputs on this machine"),
        ("python runtime/python bench --record", "times it on this machine and adds that to measurements.json"),
        ("python runtime/python run SAMPLE.npy", "classifies one raw sample"),
    ]
    final = ("python runtime/python finalize", "measures the candidates on this device and keeps the best")
    return [final, *found] if not evidence.lead else [*found, final]
