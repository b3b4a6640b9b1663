"""The gate's document and its committed schema."""

from __future__ import annotations

import json

import jsonschema

from edgekd.gate_result import SCHEMA_FILE, schema_text


def test_the_committed_schema_is_that_of_the_types():
    assert SCHEMA_FILE.read_text() == schema_text(), "run: python -m edgekd.gate_result"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))
