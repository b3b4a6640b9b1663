"""Exit codes and messages: how every ending of a verb is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer
from command import SCRIPT, edgekd

from edgekd import errors
from edgekd.cli.console import PlainProgress, guard
from edgekd.errors import EdgekdError, ExitCode


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def with_verb(body: str) -> list[str]:
    """A command line like edgekd's own, with one more verb ``try`` that does ``body``."""
    code = "import sys, time, typer\nfrom edgekd import cli, errors\n@cli.app.command('try')\ndef verb():\n"
    code += "".join(f"    {line}\n" for line in body.splitlines()) + "cli.main()"
    return [sys.executable, "-c", code]


def attempt(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*with_verb(body), *arguments, "try"], capture_output=True, text=True, timeout=60)


def all_errors(kind: type[EdgekdError] = EdgekdError) -> list[type[EdgekdError]]:
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in all_errors(sub))]


CODES = {
    "EdgekdError": 1,
    "ProofFailed": 1,
    "WorkerFailed": 1,
    "BadInput": 2,
    "BadRecipe": 2,
    "BadTarget": 2,
    "BadData": 2,
    "BadModel": 2,
    "BadBundle": 2,
    "TrainingDiverged": 2,
    "Missing": 5,
    "StoreFailed": 5,
}


def test_every_error_is_in_the_table() -> None:
    ours = [kind for kind in all_errors() if kind.__module__ == errors.__name__]
    assert {kind.__name__ for kind in ours} >= set(CODES)


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_an_expected_failure_is_one_message_and_its_exit_code(kind, capsys: pytest.CaptureFixture[str]) -> None:
    error = kind.__new__(kind)
    EdgekdError.__init__(error, "it is wrong", where="file.yaml:3", remedy="mend it")
    with pytest.raises(SystemExit) as ended, guard(debug=False):
        raise error
    assert ended.value.code == CODES.get(kind.__name__, int(kind.exit_code))
    assert capsys.readouterr() == ("", "edgekd: file.yaml:3: it is wrong\n  mend it\n")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "what"),
        ({"where": "here"}, "here: what"),
        ({"remedy": "do"}, "what\n  do"),
        ({"where": "here", "remedy": "do"}, "here: what\n  do"),
    ],
)
def test_messages(fields: dict[str, str], text: str) -> None:
    error = EdgekdError("what", **fields)
    assert error.render() == str(error) == text


def test_an_internal_error_shows_its_traceback_only_with_debug() -> None:
    done = attempt("raise ZeroDivisionError('oh')")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "edgekd: internal error: ZeroDivisionError: oh\n  run again with --debug to see where\n"
    debugged = attempt("raise ZeroDivisionError('oh')", "--debug")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr
    assert "ZeroDivisionError: oh" in debugged.stderr


def test_debug_may_stand_anywhere_and_shows_a_users_error_too(home: Path) -> None:
    for arguments in (
        ["--debug", "init", "a/b.yaml"],
        ["init", "--debug", "a/b.yaml"],
        ["init", "a/b.yaml", "--debug"],
    ):
        done = edgekd(*arguments, home=home)
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert "BadInput" in done.stderr
        assert done.stderr.endswith("mkdir -p a\n")


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 6])
def test_a_verb_chooses_its_exit_code(code: int) -> None:
    done = attempt(f"raise typer.Exit({code})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("debug", [False, True])
def test_ctrl_c_gives_130_and_says_what_resumes(debug: bool) -> None:
    command = [*with_verb("print('ready', flush=True)\ntime.sleep(60)"), *(["--debug"] if debug else []), "try"]
    # A shell's background job ignores Ctrl-C, and so would the child.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == ExitCode.INTERRUPTED
    assert out == ""
    assert err.splitlines()[-1] == (
        "edgekd: interrupted; the same command resumes a build where it stopped, and begins anything else anew"
    )
    assert ("Traceback" in err) == debug


def told(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended, guard(debug=False):
        raise error
    out, err = capsys.readouterr()
    assert out == ""
    assert isinstance(ended.value.code, int)
    return ended.value.code, err


def test_a_file_that_cannot_be_opened_is_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for place, reason in (
        (tmp_path / "nowhere", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "deep", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(OSError, match=reason) as caught:
            place.read_text()
        assert told(capsys, caught.value) == (2, f"edgekd: {place}: {reason}\n  check the path and its permissions\n")
    assert told(capsys, PermissionError(13, "Permission denied", "/root/x"))[0] == 2


def test_a_full_disk_is_not_the_users_path(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = told(capsys, OSError(28, "No space left on device", "/data/x"))
    assert code == ExitCode.MISSING
    assert err.startswith("edgekd: /data/x: No space left on device\n")


def test_out_of_memory_names_the_batch_size(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    import torch

    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 60, np.uint8)
    on_a_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    for error in (of_torch.value, of_numpy.value, MemoryError(), on_a_gpu):
        code, err = told(capsys, error)
        assert code == ExitCode.MISSING
        assert err.startswith("edgekd: out of memory")
        assert "lower data.batch_size" in err


def test_another_error_stays_an_internal_one(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(5, "Input/output error")):
        code, err = told(capsys, error)
        assert code == ExitCode.INTERNAL
        assert "--debug" in err


def test_an_abort_counts_as_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, guard(debug=False):
        raise typer.Abort
    assert ended.value.code == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["targets", "--jsn"], "No such option: --jsn"),
        (["bench"], "bundle"),
        (["bench", "x", "--seconds", "many"], "--seconds"),
        (["cache", "prune", "--older-than-days", "-1"], "--older-than-days"),
        (["cache", "nonsense"], "No such command 'nonsense'"),
        (["report", "x", "--format", "pdf"], "--format"),
    ],
)
def test_a_wrong_command_line_gives_2_and_no_traceback(home: Path, arguments: list[str], told: str) -> None:
    done = edgekd(*arguments, home=home)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert "Usage: edgekd" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_and_flags_exclude_each_other(home: Path) -> None:
    done = edgekd("build", "digits", "--data", "digits", home=home)
    assert done.returncode == 2
    assert done.stderr.startswith("edgekd: --data: these options stand for a recipe, and a recipe is named\n")


def test_errors_of_a_build_come_before_any_work(home: Path) -> None:
    for arguments, told in (
        (["digitz"], "unknown recipe 'digitz'\n  did you mean 'digits'?"),
        (["--set", "distil.epochs=3"], "--set distil.epochs=3: unknown key 'distil'"),
        (["--target", "jetsn"], "unknown target 'jetsn'\n  did you mean 'jetson'?"),
        (["--weights", "w.safetensors", "--data", "x"], "--weights: weights need their model"),
    ):
        done = edgekd("build", *arguments, "--json", home=home)
        assert done.returncode == 2
        assert done.stdout == ""
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(home.glob("artifacts/*"))


def test_a_reader_that_has_gone(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for arguments in (["targets"], ["targets", "--json"], ["--help"], ["--version"]):
            done = subprocess.run(
                [str(SCRIPT), *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
            )
            assert done.returncode == 1
            assert done.stderr == ""
    finally:
        os.close(writing)


def test_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(SCRIPT), "targets"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_stdout_at_all() -> None:
    done = subprocess.run(f"{SCRIPT} --version >&-", shell=True, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "scipy", "pandas", "sklearn", "numpy")


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys\nsys.argv = ['edgekd', *{arguments!r}]\nfrom edgekd.cli import main\n"
    code += "try:\n    main()\nfinally:\n"
    code += f"    print(sorted(set({(*HEAVY, 'rich', 'jinja2', 'yaml')!r}) & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    assert done.stdout


def test_the_light_verbs_never_import_torch(home: Path) -> None:
    for arguments in (["targets"], ["doctor"], ["cache", "ls"], ["init", str(home.parent / "r.yaml")]):
        code = f"import sys\nsys.argv = ['edgekd', *{arguments!r}]\nfrom edgekd.cli import main\n"
        code += "try:\n    main()\nfinally:\n    print('torch' in sys.modules, 'scipy' in sys.modules, file=sys.stderr)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"EDGEKD_HOME": str(home)},
        )
        assert (done.returncode, done.stderr) == (0, "False False\n")


def test_the_version(home: Path) -> None:
    from importlib.metadata import version

    assert edgekd("--version", home=home).stdout == f"{version('edgekd')}\n"


def test_without_a_verb_the_help_is_shown(home: Path) -> None:
    done = edgekd(home=home)
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_plain_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0])
    monkeypatch.setattr("edgekd.cli.console.time.monotonic", lambda: next(clock))
    progress = PlainProgress()
    progress.stage("distill")
    progress.task("epoch", 4)
    for _ in range(3):
        progress.advance()
    progress.log("done")
    assert capsys.readouterr() == ("", "[distill]\n  epoch: 2/4\ndone\n")


def test_the_bar_shows_steps_and_lines_on_a_terminal(tmp_path: Path) -> None:
    """Under a real terminal (a pseudo one): the bar and its lines appear there, stdout stays clean."""
    import pty

    code = (
        "from edgekd.cli.console import progress_for_terminal, BarProgress\n"
        "with progress_for_terminal() as p:\n"
        "    assert isinstance(p, BarProgress)\n"
        "    p.stage('distill')\n"
        "    p.task('epoch [1/2]', 2)\n    p.advance(); p.task('other', 3); p.advance(3)\n"
        "    p.log('saved [bold]x[/bold] ' + 'long ' * 40)\n"
        "print('out')"
    )
    parent, child = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=child, env=os.environ | {"TERM": "xterm"}
    )
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(parent)
    assert running.communicate(timeout=30)[0] == b"out\n"
    assert running.returncode == 0
    text = seen.decode()
    assert "[distill]" in text
    assert "saved [bold]x[/bold] long" in text
    assert "3/3" in text
