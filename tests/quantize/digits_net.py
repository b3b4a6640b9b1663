"""A narrow network trained for a few seconds on scikit-learn's digits, made once a test run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import nn

from edgekd.data.load import load_data
from edgekd.data.source import DataSource
from edgekd.distill import train_teacher
from edgekd.models import build_model
from edgekd.recipe import DataConfig, TeacherConfig
from edgekd.stage import NoProgress
from edgekd.tasks import get_task

TASK = get_task("classification")
DATA = DataConfig(name="digits", augment=("shift",))


@cache
def trained() -> tuple[nn.Module, DataSource]:
    """The network in evaluation mode, and the digits; shared, so leave them as they are."""
    source = load_data(DATA, seed=0)
    torch.manual_seed(0)
    net = build_model("edgekd:resnet-xs", classes=10, input_shape=source.input_shape, args={"width": 0.25})
    with tempfile.TemporaryDirectory() as scratch:
        train_teacher(
            net,
            source,
            config=TeacherConfig(epochs=4, lr=0.01),
            data=DATA,
            task=TASK,
            seed=0,
            scratch=Path(scratch),
            progress=NoProgress(),
        )
    return net, source
