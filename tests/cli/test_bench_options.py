"""The options of ``edgekd bench``: each belongs to one way of measuring, and is refused with the other."""

from __future__ import annotations

import inspect
import sys

import pytest

from edgekd import cli
from edgekd.cli import bench
from edgekd.pipeline import gate

ALONE = {
    "seconds": "30",
    "scenario": "single-stream",
    "batch_size": "4",
    "streams": "2",
    "threads": "1",
    "cores": "0",
}
# Each with its own default, where it has one: what counts is that it was given.
COMPARED = {
    "max_slowdown": "1.05",
    "budget_seconds": "60",
    "error": "0.01",
    "on_inconclusive": "fail",
    "gate": "latency",
    "max_memory": "1.1",
    "max_size": "1.05",
    "max_accuracy_drop": "0",
    "max_coverage_drop": "5",
    "allow_unpaired": None,
    "seed": "0",
    "out": "reports",
}


def ends(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``edgekd bench`` on bundles that are not there, so that nothing but an option is refused."""
    monkeypatch.setattr(sys, "argv", ["edgekd", "bench", "new", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code)  # type: ignore[arg-type]


def given(parameter: str, value: str | None) -> list[str]:
    option = f"--{parameter.replace('_', '-')}"
    return [option] if value is None else [option, value]


def test_every_option_belongs_to_one_way_of_measuring_or_to_both() -> None:
    both = {"context", "bundle", "json", "against"}
    assert (tuple(ALONE), tuple(COMPARED)) == (bench.ALONE, bench.COMPARED)
    assert both.isdisjoint({*ALONE, *COMPARED})
    assert {*both, *ALONE, *COMPARED} == set(inspect.signature(bench.bench).parameters)


@pytest.mark.parametrize(("parameter", "value"), COMPARED.items())
def test_a_gate_without_its_baseline_is_refused(monkeypatch, capsys, tmp_path, parameter, value) -> None:
    monkeypatch.chdir(tmp_path)
    options = given(parameter, value)
    assert ends(monkeypatch, *options) == 2
    told = f"edgekd: {options[0]} belongs to a comparison\n  name the baseline with --against, or leave it out\n"
    assert capsys.readouterr() == ("", told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("parameter", "value"), ALONE.items())
def test_options_of_one_bundle_do_not_go_with_a_comparison(monkeypatch, capsys, parameter, value) -> None:
    options = given(parameter, value)
    assert ends(monkeypatch, "--against", "old", *options) == 2
    told = f"edgekd: {options[0]} belongs to measuring one bundle alone\n  leave it out with --against\n"
    assert capsys.readouterr() == ("", told)


FLOATS = [name for name, one in inspect.signature(bench.bench).parameters.items() if isinstance(one.default, float)]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("parameter", FLOATS)
def test_numbers_that_are_not_finite_are_refused_before_measuring(monkeypatch, capsys, parameter, value) -> None:
    monkeypatch.setattr(gate, "gate_bundles", lambda *_, **__: pytest.fail("measured"))
    option, number = given(parameter, value)
    against = [] if parameter in ALONE else ["--against", "old"]
    assert ends(monkeypatch, *against, f"{option}={number}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert option in err


@pytest.mark.parametrize("options", [[], ["--against", "old"]])
def test_defaults_are_not_refused(monkeypatch, capsys, tmp_path, options) -> None:
    monkeypatch.chdir(tmp_path)
    assert ends(monkeypatch, *options) == 2
    assert capsys.readouterr().err.startswith("edgekd: new: is not a bundle")


def test_a_check_that_is_named_twice_decides_once(monkeypatch) -> None:
    asked = []

    def stop(new, old, settings, **_):
        asked.append(settings.gates)
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "gate_bundles", stop)
    named = ["--gate", "size", "--gate", "latency", "--gate", "size"]
    assert ends(monkeypatch, "--against", "old", *named) == 130
    assert asked == [["size", "latency"]]
