"""What ships of real candidates when the measured comparisons are given: never one that float beat the second time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_make_candidates import write
from torch import nn

from edgekd.backends import get_backend
from edgekd.measure import Choice, Comparison
from edgekd.pipeline import compile as compile_stage
from edgekd.pipeline.candidates import Made, make_candidates
from edgekd.pipeline.compile import CompileStage, build_precision
from edgekd.pipeline.context import Context
from edgekd.recipe import Recipe
from edgekd.runtime.choosing import TIE
from edgekd.stage import NoProgress
from edgekd.target import load_target

Times = tuple[float, float, float]


@dataclass
class Stopwatch:
    """The comparisons with float by candidate, in the race and in the second meeting; ``met``: who had one."""

    race: dict[str, Times]
    again: dict[str, Times]
    met: list[str] = field(default_factory=list)

    def compare_all(self, specs: list[Any], against: Any, **_: Any) -> list[Comparison]:
        return [self._found(spec.name, against.name, self.race) for spec in specs]

    def compare(self, one: Any, against: Any, **_: Any) -> Comparison:
        self.met.append(one.name)
        return self._found(one.name, against.name, self.again)

    @staticmethod
    def _found(name: str, against: str, times: dict[str, Times]) -> Comparison:
        return Comparison(name, against, *times[name], 0.99, (), times[name][0], 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A master, and its candidates for ONNX Runtime below ``made``."""
    place = tmp_path_factory.mktemp("quantize")
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    write(place, nn.Sequential(*body, nn.Flatten(), nn.Linear(64, 5)).eval())
    return place


@pytest.fixture(scope="module")
def candidates(folder: Path) -> list[Made]:
    target = load_target("onnxruntime-cpu")
    made = make_candidates(get_backend(target.backend), target, folder, folder / "made", NoProgress()).made
    assert [one.row["name"] for one in made] == ["int8", "int8-float-ends", "float"]
    return made


@pytest.fixture
def race(folder: Path, candidates: list[Made], tmp_path: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:

        def run(watch: Stopwatch, **quantize: str) -> tuple[str, Choice, Comparison | None, list[Made]]:
            patch.setattr(compile_stage, "compare", watch.compare)
            patch.setattr(compile_stage, "compare_all", watch.compare_all)
            recipe = Recipe.model_validate({"data": {"name": "digits"}, "quantize": quantize})
            target = build_precision(load_target("onnxruntime-cpu"), "int8")
            made = [Made(one.row | {"accurate": True}, one.compiled) for one in candidates]
            stage, backend = CompileStage(Context(recipe), target), get_backend(target.backend)
            choice, found = stage._race(made, backend, folder, tmp_path, NoProgress())
            return made[choice.index].row["name"], choice, found, made

        yield run


def watch(int8: tuple[Times, Times], ends: tuple[Times, Times] = ((1.3, 1.2, 1.4), (1.3, 1.2, 1.4))) -> Stopwatch:
    """A stopwatch from (race, again) of both integer candidates."""
    pairs = {"int8": int8, "int8-float-ends": ends}
    return Stopwatch({name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()})


LUCKY, SLOW, TIED = (0.99, 0.95, 1.03), (1.06, 0.99, 1.14), (1 + TIE / 2, 0.95, 1.06)


def test_a_wide_interval_does_not_hide_that_the_winner_is_slower_than_float(race) -> None:
    given_times = watch((LUCKY, SLOW))
    name, choice, found, made = race(given_times)
    assert (name, found, given_times.met) == ("float", None, ["int8"])
    assert "slower than float: int8" in choice.reason
    assert (made[0].row["ratio"], made[0].row["interval"], made[0].row["median_ms"]) == (1.06, [0.99, 1.14], 1.06)


def test_the_next_one_is_met_in_its_place(race) -> None:
    given_times = watch((LUCKY, SLOW), ((0.995, 0.97, 1.02), (0.97, 0.93, 1.01)))
    name, choice, found, _ = race(given_times)
    assert name == "int8-float-ends"
    assert given_times.met == ["int8", "int8-float-ends"]
    assert found.ratio == 0.97
    assert "slower than float: int8" in choice.reason


@pytest.mark.parametrize("again", [(0.9, 0.88, 0.92), (0.99, 0.5, 2.0), (1.0, 1.0, 1.0), TIED])
def test_a_winner_that_is_as_fast_within_noise_ships(race, again: Times) -> None:
    """One of float's own speed is not turned down for the last digit."""
    given_times = watch(((0.9, 0.88, 0.92), again))
    name, _, found, made = race(given_times)
    assert (name, given_times.met) == ("int8", ["int8"])
    assert (found.ratio, found.low, found.high) == again
    assert made[0].row["ratio"] == 0.9


def test_a_narrow_interval_above_float_is_slower(race) -> None:
    assert race(watch((LUCKY, (1.005, 1.002, 1.008))))[0] == "float"


def test_size_is_worth_its_time_when_it_is_asked_for(race) -> None:
    name, _, found, _ = race(watch((LUCKY, SLOW)), prefer="size")
    assert name == "int8"
    assert found.ratio == 1.06


TIMES = st.tuples(st.floats(0.5, 1.5), st.floats(0, 0.2), st.floats(0, 0.2)).map(
    lambda row: (row[0], row[0] - row[1], row[0] + row[2])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.tuples(TIMES, TIMES), st.tuples(TIMES, TIMES))
def test_what_ships_was_as_fast_in_its_last_meeting_and_each_is_met_once(race, int8, ends) -> None:
    given_times = watch(int8, ends)
    name, _, found, _ = race(given_times)
    assert len(given_times.met) == len(set(given_times.met))
    if name == "float":
        assert found is None
    else:
        assert given_times.met[-1] == name
        assert found.ratio <= 1 + TIE
        assert found.low <= 1
