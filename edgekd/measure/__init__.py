"""Latency, memory, accuracy, comparisons and proofs, with the machine they were taken on."""

from edgekd.measure.accuracy import measure_accuracy
from edgekd.measure.choose import Candidate, Choice, choose
from edgekd.measure.compare import Comparison, Pair, compare, compare_all, conclude, measure_pairs
from edgekd.measure.latency import Latency, measure_latency
from edgekd.measure.memory import peak_memory
from edgekd.measure.spec import ModelSpec
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
    "measure_pairs",
    "peak_memory",
    "usable_cpus",
]
