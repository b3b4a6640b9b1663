"""Factories as users write them."""

from torch import nn


def plain(classes: int, input_shape: tuple[int, ...], width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(input_shape[0]), width), nn.Linear(width, classes))


def knows_nothing() -> nn.Module:
    return nn.Linear(3, 2)


def no_module(classes: int) -> dict:
    return {"classes": classes}


def failing() -> nn.Module:
    raise RuntimeError("not today")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = self.one
