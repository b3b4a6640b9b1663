"""Data sets by name, folder or the user's factory, with the preprocessing that training and devices share."""

from edgekd.data.augment import augment
from edgekd.data.calibration import calibration_samples
from edgekd.data.load import load_data
from edgekd.data.source import DataSource

__all__ = ["DataSource", "augment", "calibration_samples", "load_data"]
