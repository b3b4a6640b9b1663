"""Documents of gates, read from files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from edgekd.errors import BadInput
from edgekd.gate_result import KIND, SCHEMA, GateResult

REMEDY = "give a gate.json as `edgekd bench NEW --against OLD --out FOLDER` writes it"
# Bytes of a document at most; a gate that measured for a whole day writes a few million.
LARGEST = 64_000_000


def read_gate(path: Path) -> GateResult:
    """The document in the file at ``path``.

    Raises:
        BadInput: it is not readable, no document of a gate, or one of another schema version.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput("is too large for a document of a gate", where=str(path), remedy=REMEDY)
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=str(path), remedy="check the path") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not JSON: {error}", where=str(path), remedy=REMEDY) from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise BadInput("is JSON, but no document of a gate", where=str(path), remedy=REMEDY)
    if value.get("schema_version") != SCHEMA:
        raise BadInput(
            f"has schema version {json.dumps(value.get('schema_version'))[:20]}; this edgekd reads {SCHEMA}",
            where=str(path),
            remedy="read it with the edgekd that wrote it, or bench anew",
        )
    try:
        return GateResult.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(one) for one in first["loc"])
        raise BadInput(f"{place}: {first['msg']}", where=str(path), remedy=REMEDY) from error
