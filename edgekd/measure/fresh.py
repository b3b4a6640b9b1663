"""Measuring in fresh processes, as devices do it; what fails there raises edgekd's own errors.

Missing: a runtime is not here. WorkerFailed: a process crashed or hung, or a model does not load or gives wrong
outputs; names the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekd import errors
from edgekd.runtime import compare as pairs
from edgekd.runtime import latency, memory
from edgekd.runtime.process import REFUSED, WorkerFailed
from edgekd.runtime.sessions import RuntimeMissing, SessionError

FAILED = "run it again, with more memory free; if it stays, the runtime fails on this model: try another version of it"
NOT_HELD = "the runtime opens or computes it otherwise than before: try another version of it, or report this"


@contextmanager
def worker_errors(*, of_bundle: bool = False) -> Iterator[None]:
    """Raise Missing, BadInput (cores that are not there) or WorkerFailed for what measuring processes tell.

    ``of_bundle``: a model that does not load or gives wrong outputs is a bundle's, which does not hold: BadBundle.
    """
    try:
        yield
    except RuntimeMissing as error:
        remedy = f"install it with: {error.install}" if error.install else ""
        raise errors.Missing(error.what, remedy=remedy) from error
    except SessionError as error:
        raise errors.BadInput(str(error)) from error
    except WorkerFailed as error:
        if of_bundle and error.kind in REFUSED:
            what = f"{error.label}: {error.what}"
            raise errors.BadBundle(what, where=error.where, remedy="see: edgekd verify") from error
        remedy = NOT_HELD if error.kind in REFUSED else FAILED
        raise errors.WorkerFailed(f"{error.label}: {error.what}", where=error.where, remedy=remedy) from error


compare = worker_errors()(pairs.compare)
compare_all = worker_errors()(pairs.compare_all)
measure_latency = worker_errors()(latency.measure_latency)
peak_memory = worker_errors()(memory.peak_memory)
