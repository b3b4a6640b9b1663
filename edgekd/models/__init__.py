"""Teachers and students by name or by the user's factory, and their weights, loaded safely."""

from edgekd.models.registry import build_model, check_classes
from edgekd.models.weights import load_weights, save_weights

__all__ = ["build_model", "check_classes", "load_weights", "save_weights"]
