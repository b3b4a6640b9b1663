"""Which samples of the test set a model gets right, as bundles carry it: so two can be compared sample by sample."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

# More samples than this are not believed of a file: they would only fill the memory.
MOST = 100_000_000


def right(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Bool (N,): whether the largest of ``outputs`` (N, K) is the label (N,); rows with NaN or infinity are wrong."""
    found: np.ndarray = np.isfinite(outputs).all(1) & (outputs.argmax(1) == labels)
    return found


def correct_row(correct: np.ndarray, labels: np.ndarray, data: str) -> dict[str, Any]:
    """``correct``, bool (N,), as a JSON-ready row: packed, compressed, base64; ``data`` is the data's fingerprint."""
    return {
        "samples": len(correct),
        "data": data,
        "labels": hashlib.sha256(np.ascontiguousarray(labels, "<i8").tobytes()).hexdigest()[:16],
        "bits": base64.b64encode(zlib.compress(np.packbits(correct).tobytes(), 9)).decode(),
    }


def read_correct(row: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `correct_row`.

    Raises:
        ValueError: it is not in that form.
    """
    try:
        samples = row["samples"]
        if not isinstance(samples, int) or isinstance(samples, bool) or not 0 < samples <= MOST:
            raise ValueError(f"{samples!r} samples")
        unpack = zlib.decompressobj()
        packed = unpack.decompress(base64.b64decode(row["bits"], validate=True), samples // 8 + 2)
        if len(packed) != -(-samples // 8):
            raise ValueError("the bits are not as many as the samples")
    except (KeyError, TypeError, AttributeError, binascii.Error, zlib.error) as error:
        raise ValueError(f"not a row of right and wrong samples: {error!r}") from error
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=samples).astype(bool)


def same_samples(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows tell of the same test samples in the same order."""
    return all(one.get(key) == other.get(key) for key in ("samples", "data", "labels"))
