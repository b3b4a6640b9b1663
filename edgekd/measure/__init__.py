"""Latency, memory, accuracy, comparisons and proofs, with the machine they were taken on."""

from edgekd.measure.accuracy import measure_accuracy
from edgekd.measure.choose import Candidate, Choice, choose
from edgekd.measure.compare import Comparison, compare, compare_all, verdict
from edgekd.measure.latency import Latency, measure_latency
from edgekd.measure.machine import describe_machine, machine_key, machine_line, usable_cores
from edgekd.measure.memory import peak_memory
from edgekd.measure.spec import ModelSpec

__all__ = [
    "Candidate",
    "Choice",
    "Comparison",
    "Latency",
    "ModelSpec",
    "choose",
    "compare",
    "compare_all",
    "describe_machine",
    "machine_key",
    "machine_line",
    "measure_accuracy",
    "measure_latency",
    "peak_memory",
    "usable_cores",
    "verdict",
]
