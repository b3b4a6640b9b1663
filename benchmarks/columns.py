"""What every row of int8_forms.py has beside its model and backend: null where it is not known."""

from __future__ import annotations

from typing import Any

UNKNOWN: dict[str, Any] = {
    "ours_over_best_peer": None,
    "ours_over_float": None,
    "best_peer": None,
    "interval": None,
    "snr_db": None,
    "peer_snr_db": None,
    "float_top1": None,
    "top1": None,
    "integer_coverage": None,
    "profile": None,
}
