"""The model specs of edgekd.runtime, made from compiled models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.runtime import spec
from edgekd.runtime.spec import absolute, load_arrays, save_arrays

if TYPE_CHECKING:
    from edgekd.backends.base import Backend
    from edgekd.forms import CompiledModel
    from edgekd.target import Target

__all__ = ["ModelSpec", "load_arrays", "save_arrays"]


class ModelSpec(spec.ModelSpec):
    """One model to measure: see `edgekd.runtime.spec.ModelSpec`."""

    @classmethod
    def of(
        cls,
        backend: Backend,
        model: CompiledModel,
        target: Target,
        feeds: Mapping[str, np.ndarray],
        scratch: Path,
        **more: Any,
    ) -> ModelSpec:
        """The spec of a compiled model with its target's threads and its own precision; feeds go to ``scratch``."""
        return cls(
            path=absolute(model.path),
            runtime=backend.name,  # type: ignore[arg-type]
            feeds=save_arrays(feeds, scratch),
            threads=target.runtime.threads,
            precision=model.meta.get("inference_precision", target.runtime.inference_precision),
            **{"label": model.path.parent.name, "cores": target.runtime.cores, **more},
        )
