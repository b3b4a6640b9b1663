"""The CI recipes of docs/ci.md: YAML that parses, shell that runs, and comments that are updated in place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from edgekd.errors import ExitCode
from edgekd.report.gate import read_gate, render_gate_markdown

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "tests" / "report" / "gate_example.json"
# Three whole files, and the steps of a fourth.
GITHUB, BASELINE, GITLAB, OWN = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
STEPS = {step["name"]: step for step in GITHUB["jobs"]["gate"]["steps"] if "name" in step}


def scripts() -> list[str]:
    """Every piece of shell in the recipes."""
    steps = [*GITHUB["jobs"]["gate"]["steps"], *BASELINE["jobs"]["baseline"]["steps"], *OWN]
    lines = [line for job in GITLAB.values() for key in ("before_script", "script") for line in job.get(key, [])]
    return [step["run"] for step in steps if "run" in step] + lines


class Forge(BaseHTTPRequestHandler):
    """Comments as GitHub's and GitLab's interfaces keep them."""

    comments: dict[int, str]
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self._answer([{"id": key, "body": body} for key, body in self.comments.items()])

    def do_POST(self) -> None:
        self._keep(len(self.comments) + 1)

    def do_PATCH(self) -> None:
        self._keep(int(self.path.rpartition("/")[2]))

    do_PUT = do_PATCH

    def log_message(self, *_: Any) -> None:
        pass

    def _keep(self, key: int) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = json.loads(sent)["body"] if sent.startswith("{") else parse_qs(sent)["body"][0]
        self.comments[key] = body
        self._answer({"id": key})

    def _answer(self, value: Any) -> None:
        self.asked.append((self.command, self.path))
        assert "token-1" in (self.headers["Authorization"] or self.headers["PRIVATE-TOKEN"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


@pytest.fixture
def forge() -> Iterator[tuple[str, type[Forge]]]:
    kept = type("Kept", (Forge,), {"comments": {1: "<!-- another bot's -->\nhello"}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kept)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kept
    server.shutdown()
    server.server_close()


def shell(script: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As runners do: bash that stops at the first failure."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=cwd, env={"PATH": path} | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("script", scripts())
def test_shell_parses(script: str) -> None:
    plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
    done = subprocess.run(["bash", "-n"], input=plain, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_command_of_edgekd_is_one_that_it_has() -> None:
    from typer.main import get_command

    from edgekd.cli import app

    commands: Any = get_command(app)
    found = [line for script in scripts() for line in re.findall(r"^\s*edgekd (.*)$", script, re.MULTILINE)]
    assert {line.split()[0] for line in found} == {"build", "bench", "verify"}
    for line in found:
        verb = commands.commands[line.split()[0]]
        known = {name for one in verb.params for name in one.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_the_table_has_the_exit_codes_of_a_gate() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert codes == set(ExitCode) - {ExitCode.BUDGET_MISSED}


def test_baselines_are_built_as_what_is_compared_with_them() -> None:
    build = STEPS["Build"]["run"]
    assert build in [step.get("run") for step in BASELINE["jobs"]["baseline"]["steps"]]
    upload = BASELINE["jobs"]["baseline"]["steps"][-1]["with"]
    assert f"--name {upload['name']} --dir released" in STEPS["Baseline"]["run"]
    assert GITLAB["baseline"]["extends"] == GITLAB["latency"]["extends"] == ".build"
    assert GITLAB["latency"]["artifacts"]["reports"]["junit"] == "gate/gate.xml"
    assert "?job=baseline" in GITLAB["latency"]["script"][0]


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the PATH")


def gate(folder: Path, words: str) -> str:
    """A gate's Markdown in ``folder``, as ``--out gate`` leaves it."""
    result = read_gate(EXAMPLE)
    text = render_gate_markdown(result.model_copy(update={"summary": words}))
    (folder / "gate").mkdir(exist_ok=True)
    (folder / "gate" / "gate.md").write_text(text, encoding="utf-8")
    return text


def comment(site: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    if site == "github":
        names = {"GITHUB_API_URL": url, "GITHUB_REPOSITORY": "a/b", "PULL": "7", "GH_TOKEN": "token-1"}
        return shell(STEPS["Comment"]["run"], folder, **names)
    names = {"CI_API_V4_URL": url, "CI_PROJECT_ID": "5", "CI_MERGE_REQUEST_IID": "7", "GITLAB_TOKEN": "token-1"}
    return shell(GITLAB["latency"]["script"][2], folder, **names)


@needs_curl
@pytest.mark.parametrize("site", ["github", "gitlab"])
def test_the_second_run_updates_the_comment_of_the_first(site: str, forge, tmp_path: Path) -> None:
    url, kept = forge
    for words in ("first", "second & 'last' \"±\" ✓"):
        text = gate(tmp_path, words)
        done = comment(site, tmp_path, url)
        assert (done.returncode, done.stderr) == (0, "")
        assert list(kept.comments) == [1, 2]
        assert kept.comments[1].startswith("<!-- another")
        assert kept.comments[2] == text
    update = "PATCH" if site == "github" else "PUT"
    assert [verb for verb, _ in kept.asked] == ["GET", "POST", "GET", update]
    last = {"github": "/repos/a/b/issues/comments/2", "gitlab": "/projects/5/merge_requests/7/notes/2"}
    assert kept.asked[-1][1] == last[site]


@needs_curl
@pytest.mark.parametrize("site", ["github", "gitlab"])
def test_without_a_report_there_is_no_comment(site: str, forge, tmp_path: Path) -> None:
    url, kept = forge
    assert comment(site, tmp_path, url).returncode == 0
    assert kept.asked == []


@pytest.mark.parametrize("code", [0, 3, 6])
def test_the_gate_s_exit_code_ends_the_job_after_its_reports(code: int, tmp_path: Path) -> None:
    """A command that stands in for edgekd ends with the code: what is tested is the shell around it."""
    tool = tmp_path / "bin" / "edgekd"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nmkdir -p gate; echo report > gate/gate.md; exit {code}\n")
    tool.chmod(0o755)
    path = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "BUNDLE": "x"}
    files = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    assert shell(STEPS["Gate"]["run"], tmp_path, **path, **files).returncode == 0
    assert (tmp_path / "output").read_text() == f"code={code}\n"
    assert (tmp_path / "summary").read_text() == "report\n"
    verdict = STEPS["Verdict"]["run"].replace("${{ steps.gate.outputs.code }}", str(code))
    assert shell(verdict, tmp_path).returncode == code
    assert shell(GITLAB["latency"]["script"][1], tmp_path, **path).returncode == 0
    assert shell(GITLAB["latency"]["script"][3], tmp_path).returncode == code
