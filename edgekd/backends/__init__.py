"""Inference runtimes as backends: which integer forms they want, how they compile, what they made of a model."""

from edgekd.backends.base import Availability, Backend, get_backend, list_backends

__all__ = ["Availability", "Backend", "get_backend", "list_backends"]
