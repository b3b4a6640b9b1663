"""The gate's document and its committed schema."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest

from edgekd.gate_result import MOST_LOOKS, SCHEMA_FILE, GateResult, schema_text
from edgekd.runtime.sequential import Plan, decide, planned_looks

EXAMPLE = Path(__file__).parents[1] / "report" / "gate_example.json"


def test_the_committed_schema_is_that_of_the_types():
    assert SCHEMA_FILE.read_text() == schema_text(), "run: python -m edgekd.gate_result"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_the_example_of_a_real_run_is_of_the_schema_and_replays_to_its_verdict():
    told = json.loads(EXAMPLE.read_text())
    jsonschema.validate(told, json.loads(SCHEMA_FILE.read_text()))
    result = GateResult.model_validate(told)
    assert result.to_json() == told
    latency = result.latency
    plan = Plan(result.settings.tolerance, latency.level, tuple(latency.planned_looks))
    found = decide([pair.log_ratio for pair in latency.pairs], plan, ended=True)
    assert found.verdict == latency.verdict
    assert math.exp(found.looks[-1].high) == latency.interval[1]


def test_a_day_of_measuring_fits_the_schema():
    assert len(planned_looks(2 * 86_400)) < MOST_LOOKS


def test_what_is_not_of_the_schema_is_refused():
    told = json.loads(EXAMPLE.read_text())
    for change in ({"verdict": "fine"}, {"latency": {**told["latency"], "ratio": "slow"}}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**told, **change}, json.loads(SCHEMA_FILE.read_text()))
