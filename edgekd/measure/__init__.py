"""Latency, memory, accuracy, comparisons and proofs, with the machine they were taken on.

The loop that measures and the rule that chooses are edgekd.runtime's, since devices have the same.
"""

from edgekd.measure.accuracy import measure_accuracy
from edgekd.measure.fresh import compare, compare_all, measure_latency, peak_memory
from edgekd.measure.spec import ModelSpec
from edgekd.runtime.choosing import Candidate, Choice, choose
from edgekd.runtime.compare import Comparison, Pair, conclude
from edgekd.runtime.latency import Latency
from edgekd.runtime.machine import describe_machine, machine_key, machine_name, usable_cpus

__all__ = [
    "Candidate",
    "Choice",
    "Comparison",
    "Latency",
    "ModelSpec",
    "Pair",
    "choose",
    "compare",
    "compare_all",
    "conclude",
    "describe_machine",
    "machine_key",
    "machine_name",
    "measure_accuracy",
    "measure_latency",
    "peak_memory",
    "usable_cpus",
]
