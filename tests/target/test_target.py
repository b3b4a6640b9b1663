"""Targets and calibration policies: the shipped ones, the user's, and mistakes."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.backends import get_backend
from edgekd.errors import BadRecipe, BadTarget, ExitCode
from edgekd.runtime.machine import best_isa
from edgekd.runtime.tensorrt_api import has_gpu
from edgekd.target import (
    CalibrationPolicy,
    Target,
    list_targets,
    load_calibration,
    load_target,
    shipped,
)

NAMES = [target.name for target in list_targets()]
BOARD = """\
name: board
aliases:
  - b
backend: onnxruntime
precision: fp32
arch: aarch64
isa: neon
runtime:
  versions: ">=1.20"
  threads: 4
device: null
"""


def test_the_promised_targets_are_shipped() -> None:
    assert {"onnxruntime-cpu", "openvino-cpu", "jetson-orin", "cuda", "rtx", "raspberry-pi-5"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_targets_load_and_have_a_backend(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.about
    assert get_backend(target.backend).name == target.backend
    assert (shipped("targets") / f"{name}.yaml").is_file()
    assert Target.model_validate_json(target.model_dump_json()) == target


@pytest.mark.parametrize(("alias", "name"), [("jetson", "jetson-orin"), ("rpi5", "raspberry-pi-5")])
def test_aliases(alias: str, name: str) -> None:
    assert load_target(alias) is load_target(name)


def test_no_name_stands_for_two_targets() -> None:
    names = [name for target in list_targets() for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("jetsn", "did you mean 'jetson'?"),
        ("openvino", "did you mean 'openvino-cpu'?"),
        ("zzzz", "known: cuda, jetson, jetson-orin"),
        ("", "known: "),
        ("../targets/cuda", "unknown target"),
    ],
)
def test_an_unknown_target_is_told_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(BadTarget, match="unknown target") as caught:
        load_target(name)
    assert told in caught.value.render()
    assert "edgekd targets" in caught.value.render()
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_a_target_file_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    target = load_target(str(path))
    assert (target.name, target.aliases, target.runtime.threads) == ("board", ("b",), 4)
    with pytest.raises(ValueError, match="frozen"):
        target.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("threads: 4", "treads: 4", ["board.yaml:10: unknown key 'runtime.treads'", "did you mean 'threads'?"]),
        (
            "threads: 4",
            "threads: 0",
            ["board.yaml:10: runtime.threads: should be greater than or equal to 1"],
        ),
        ("threads: 4", "threads: 4\n  cores: []", ["board.yaml:11: runtime.cores: "]),
        ("threads: 4", "threads: 4\n  cores: [0, -1]", ["board.yaml:11: runtime.cores.1: "]),
        ("threads: 4", "threads: 4\n  threads: 5", ["board.yaml:11: the key 'runtime.threads' stands twice"]),
        ("backend: onnxruntime", "backend: tflite", ["board.yaml:4: backend: ", "'tensorrt'", "'tflite'"]),
        ("backend: onnxruntime\n", "", ["board.yaml: backend: this key is needed"]),
        ("isa: neon", "isa: sse", ["board.yaml:7: isa: ", "'sse'"]),
        ("name: board", "name: a/../../b", ["board.yaml:1: name: ", "a/../../b"]),
        ("name: board", "name: 5", ["board.yaml:1: name: should be text", "quotes"]),
        ("  - b", "  - /", ["board.yaml:3: aliases.0: "]),
        ("name: board", "name: [", ["board.yaml:", "is not YAML"]),
        ('">=1.20"', '"~=1.20"', ["board.yaml:9: runtime.versions: ", "'~=1.20'", "use >=, <="]),
        ('">=1.20"', '">=1.x"', ["board.yaml:9: runtime.versions: ", "'>=1.x'"]),
        ("device: null", 'board: "Pi ("', ["board.yaml:11: board: ", "regular expression"]),
    ],
)
def test_mistakes_in_a_target_file(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    path = tmp_path / "board.yaml"
    assert old in BOARD
    path.write_text(BOARD.replace(old, new))
    with pytest.raises(BadTarget) as caught:
        load_target(str(path))
    for part in told:
        assert part in caught.value.render()


def test_a_target_file_that_is_not_there() -> None:
    with pytest.raises(BadTarget, match=r"nowhere\.yaml: there is no such file"):
        load_target("nowhere.yaml")


@settings(max_examples=80, deadline=None)
@given(line=st.integers(0, 10), new=st.from_regex(r"[a-z]{1,8}", fullmatch=True))
def test_a_renamed_key_is_named_with_its_line(tmp_path_factory: pytest.TempPathFactory, line: int, new: str) -> None:
    rows = BOARD.splitlines()
    if rows[line].lstrip().startswith("- ") or new in {*Target.model_fields, "versions", "threads", "flavour", "dla"}:
        return
    key = rows[line].lstrip().partition(":")[0]
    rows[line] = rows[line].replace(f"{key}:", f'"{new}":')
    path = tmp_path_factory.mktemp("renamed") / "t.yaml"
    path.write_text("\n".join(rows))
    with pytest.raises(BadTarget) as caught:
        load_target(str(path))
    assert f"{path}:{line + 1}: unknown key " in caught.value.render()
    assert new in caught.value.render()


def test_the_instruction_set_of_this_machine() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    if platform.machine() == "x86_64":
        vnni = "avx512_vnni" in flags or "avx_vnni" in flags or "amx_int8" in flags
        assert (best_isa() in ("avx512-vnni", "avx-vnni", "amx")) == vnni
        assert load_target("onnxruntime-cpu").has_vnni() == vnni
    else:
        assert best_isa().startswith("neon") == ("aarch64" in platform.machine())
    assert load_target("onnxruntime-cpu").resolved_isa() == best_isa()


@pytest.mark.parametrize(
    ("isa", "wide"),
    [("avx2", False), ("avx512", False), ("avx512-vnni", True), ("avx-vnni", True), ("amx", True), ("neon", True)],
)
def test_which_instruction_sets_do_not_saturate(isa: str, wide: bool) -> None:
    assert Target(name="t", backend="onnxruntime", isa=isa).has_vnni() is wide  # type: ignore[arg-type]


@pytest.mark.parametrize(("isa", "wide"), [("avx2", False), ("amx", True), ("neon", True)])
def test_an_instruction_set_that_is_not_named_is_the_hosts(
    monkeypatch: pytest.MonkeyPatch, isa: str, wide: bool
) -> None:
    monkeypatch.setattr("edgekd.target.best_isa", lambda: isa)
    assert Target(name="t", backend="onnxruntime").has_vnni() is wide
    assert Target(name="t", backend="onnxruntime", arch=platform.machine()).has_vnni() is wide  # type: ignore[arg-type]
    # Integers of a GPU never saturate, whatever CPU sits beside it.
    assert Target(name="t", backend="tensorrt").has_vnni() is True
    # ARM accumulates in 32 bits; of an x86 CPU that nobody knows, the worst is expected.
    monkeypatch.setattr("edgekd.target.platform.machine", lambda: "riscv64")
    assert Target(name="t", backend="onnxruntime", arch="aarch64").has_vnni() is True
    assert Target(name="t", backend="onnxruntime", arch="x86_64").has_vnni() is False


FLAGS = {"avx2": "avx2", "avx512": "avx512bw", "avx512-vnni": "avx512_vnni", "avx-vnni": "avx_vnni", "amx": "amx_int8"}


@pytest.mark.parametrize("isa", [*FLAGS, "neon", "neon-dot", "host"])
def test_a_target_is_here_where_its_instruction_set_is(isa: str) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    arm = platform.machine() == "aarch64"
    has = {"host": True, "neon": arm, "neon-dot": "asimddp" in flags}.get(isa, FLAGS.get(isa) in flags)
    assert Target(name="t", backend="onnxruntime", isa=isa).is_here() is has  # type: ignore[arg-type]


def test_a_board_is_here_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.runtime import machine

    def here(board: str | None, pattern: str) -> bool:
        monkeypatch.setattr(machine, "describe_machine", lambda: {"board": board, "arch": "aarch64", "isa": []})
        return Target(name="t", backend="onnxruntime", board=pattern).is_here()

    pi, jetson = load_target("rpi5").board, load_target("jetson").board
    assert pi
    assert jetson
    assert here("Raspberry Pi 5 Model B Rev 1.0", pi)
    assert here("Raspberry Pi Compute Module 5 Rev 1.0", pi)
    assert not here("Raspberry Pi 4 Model B Rev 1.5", pi)
    assert not here(None, pi), "another ARM computer, in a cloud for example"
    assert here("NVIDIA Jetson AGX Orin Developer Kit", jetson)
    assert here("NVIDIA Jetson Orin Nano Developer Kit", jetson)
    assert not here("NVIDIA Jetson Xavier NX Developer Kit", jetson)


def test_what_is_here() -> None:
    assert load_target("onnxruntime-cpu").is_here()
    if platform.machine() == "x86_64":
        assert not load_target("raspberry-pi-5").is_here()
        assert not load_target("jetson").is_here()
        assert load_target("cuda").is_here() == has_gpu()
    else:
        assert not load_target("openvino-cpu").is_here()
        assert not load_target("cuda").is_here()


def test_calibration_policies_load() -> None:
    found = sorted(shipped("calibration").glob("*.yaml"))
    estimators = ["min-max", "moving-average", "percentile", "mse", "entropy"]
    assert {path.stem for path in found} == {"default", *estimators}
    assert [load_calibration(name).estimator for name in estimators] == estimators
    assert load_calibration("default").model_copy(update={"about": ""}) == CalibrationPolicy()
    for path in found:
        assert load_calibration(path.stem).name == path.stem
        assert load_calibration(str(path)) == load_calibration(path.stem)


def test_mistakes_in_a_calibration_policy(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe) as caught:
        load_calibration("defualt")
    assert "quantize.calibration: unknown calibration policy 'defualt'\n  did you mean 'default'?" in str(caught.value)
    with pytest.raises(BadRecipe, match="there is no such file"):
        load_calibration(str(tmp_path / "nowhere.yaml"))
    path = tmp_path / "mine.yaml"
    value = load_calibration("default").model_dump()
    wrongs = (("samples", 0), ("averaging", 0), ("averaging", 1.5), ("estimator", "magic"), ("sample", 3))
    for key, wrong in (*wrongs, ("percentile", 0.9999), ("percentile", 100.1), ("percentile", "most")):
        path.write_text(yaml.safe_dump(value | {key: wrong}))
        with pytest.raises(BadRecipe, match=rf"mine\.yaml:\d+: .*{key}"):
            load_calibration(str(path))
    path.write_text("estimator: mse")
    assert load_calibration(str(path)) == CalibrationPolicy(name="mine", estimator="mse")
    path.write_text(yaml.safe_dump(value | {"samples": 16}))
    assert load_calibration(str(path)) == CalibrationPolicy(**(value | {"samples": 16}))
