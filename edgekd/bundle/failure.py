"""The errors of edgekd.runtime, which knows no others, as edgekd's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekd.errors import BadBundle, BadInput, Missing, StoreFailed
from edgekd.runtime.bundle_files import BundleError
from edgekd.runtime.model import NotFinalized
from edgekd.runtime.preprocess import PreprocessError
from edgekd.runtime.selection import NeedsVnni
from edgekd.runtime.sessions import RuntimeMissing, SessionError


@contextmanager
def bundle_errors(path: Path) -> Iterator[None]:
    """Raise BadBundle, Missing, StoreFailed (what the system refuses) or BadInput (a sample) for what fails inside."""
    try:
        yield
    except RuntimeMissing as error:
        remedy = f"install it with: {error.install}" if error.install else ""
        raise Missing(error.what, where=str(path), remedy=remedy) from error
    except (NotFinalized, NeedsVnni) as error:
        raise Missing(error.what, where=str(path), remedy=error.remedy) from error
    except BundleError as error:
        raise BadBundle(error.what, where=error.where or str(path), remedy=error.remedy) from error
    except SessionError as error:
        raise BadBundle(str(error), where=str(path)) from error
    except PreprocessError as error:
        raise BadInput(str(error), where=str(path)) from error
    except OSError as error:
        raise StoreFailed(
            f"the bundle cannot be read or written: {error.strerror or error}", where=str(error.filename or path)
        ) from error
