"""The CI recipes of docs/ci.md: YAML that parses, shell that runs, and comments that are updated in place."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from edgekd.errors import ExitCode
from edgekd.recipe import recipe_template
from edgekd.report.gate import read_gate, render_gate_markdown
from edgekd.store import Store

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "tests" / "report" / "gate_example.json"
# Three whole files, and the steps of a fourth.
BASELINE, GITHUB, GITLAB, OWN = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
STEPS = {step["name"]: step for step in GITHUB["jobs"]["gate"]["steps"] if "name" in step}
KEPT = {step["name"]: step for step in BASELINE["jobs"]["baseline"]["steps"] if "name" in step}
FETCH, *_, GATE = GITLAB["latency"]["script"]
(NOTE,) = GITLAB["latency"]["after_script"]


def scripts() -> list[str]:
    """Every piece of shell in the recipes."""
    steps = [*GITHUB["jobs"]["gate"]["steps"], *BASELINE["jobs"]["baseline"]["steps"], *OWN]
    keys = ("before_script", "script", "after_script")
    lines = [line for job in GITLAB.values() for key in keys for line in job.get(key, [])]
    return [step["run"] for step in steps if "run" in step] + lines


class Forge(BaseHTTPRequestHandler):
    """Comments as GitHub's and GitLab's interfaces keep them, and the artifacts of a job.

    ``writers`` has those who are no bot; ``failing`` the answer to each method that fails.
    """

    comments: dict[int, str]
    writers: dict[int, str]
    failing: dict[str, int]
    asked: list[tuple[str, str]]
    tokens: list[tuple[str, str]]

    def do_GET(self) -> None:
        place, asked = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if place.endswith("/artifacts/main/download") and asked == {"job": ["baseline"]}:
            held = io.BytesIO()
            with zipfile.ZipFile(held, "w") as archive:
                archive.writestr("dist/x/manifest.json", "{}")
            self._answer(held.getvalue())
            return
        # GitLab's notes come newest first unless asked otherwise, GitHub's comments in their order.
        newest_first = place.endswith("/notes") and asked.get("sort", ["desc"]) != ["asc"]
        size, page = (int(asked.get(key, [default])[0]) for key, default in (("per_page", "20"), ("page", "1")))
        size = min(size, 100)
        keys = sorted(self.comments, reverse=newest_first)[(page - 1) * size : page * size]
        self._answer([self._told(key) for key in keys])

    def do_POST(self) -> None:
        self._keep(len(self.comments) + 1)

    def do_PATCH(self) -> None:
        self._keep(int(self.path.rpartition("/")[2]))

    do_PUT = do_PATCH

    def log_message(self, *_: Any) -> None:
        pass

    def _told(self, key: int) -> dict[str, Any]:
        kind = self.writers.get(key, "Bot")
        # A user whose account is gone is null.
        return {"id": key, "body": self.comments[key], "user": {"type": kind} if kind else None}

    def _keep(self, key: int) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = json.loads(sent)["body"] if sent.startswith("{") else parse_qs(sent)["body"][0]
        if self.command not in self.failing:
            self.comments[key] = body
        self._answer({"id": key})

    def _answer(self, value: Any) -> None:
        self.asked.append((self.command, self.path))
        names = ("Authorization", "PRIVATE-TOKEN", "JOB-TOKEN")
        self.tokens += [(name, self.headers[name]) for name in names if self.headers[name]]
        self.send_response(self.failing.get(self.command, 200))
        self.end_headers()
        self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())


@pytest.fixture
def forge() -> Iterator[tuple[str, type[Forge]]]:
    held = {"comments": {1: "<!-- another bot's -->\nhello"}, "writers": {}, "failing": {}, "asked": [], "tokens": []}
    kept = type("Kept", (Forge,), held)
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


def tool(folder: Path, name: str, script: str) -> dict[str, str]:
    """A command that stands in for ``name``, and the environment that finds it: tested is the shell around it."""
    place = folder / "bin" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    return {"PATH": f"{place.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("script", scripts())
def test_shell_parses(script: str) -> None:
    plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
    done = subprocess.run(["bash", "-n"], input=plain, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_table_has_the_exit_codes_of_a_gate() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    # SIGTERM's is no code of edgekd's own errors, but what the shell would tell.
    assert codes == {*ExitCode, 128 + signal.SIGTERM} - {ExitCode.BUDGET_MISSED}


def test_baselines_are_built_as_what_is_compared_with_them() -> None:
    build = STEPS["Build"]["run"]
    assert build == KEPT["Build"]["run"]
    (upload,) = (step for step in BASELINE["jobs"]["baseline"]["steps"] if "upload-artifact" in step.get("uses", ""))
    assert f"--name {upload['with']['name']} --dir released" in STEPS["Baseline"]["run"]
    assert GITLAB["baseline"]["extends"] == GITLAB["latency"]["extends"] == ".edgekd"
    assert GITLAB["baseline"]["script"][:2] == GITLAB["latency"]["script"][1:3] == build.splitlines()
    assert GITLAB["latency"]["artifacts"]["reports"]["junit"] == "gate/gate.xml"


def test_recipes_gate_the_checkout_s_own_recipe() -> None:
    """As `edgekd init` writes it: what a pull request changes is what is built."""
    recipe = yaml.safe_load(recipe_template())
    (target,) = recipe["targets"]
    assert f"edgekd build recipe.yaml --target {target} --out dist" in STEPS["Build"]["run"]
    assert GITHUB["env"]["BUNDLE"] == GITLAB["variables"]["BUNDLE"] == f"{recipe['name']}-{target}"
    assert "$BUNDLE" in STEPS["Gate"]["run"]
    assert "$BUNDLE" in GATE


def test_a_baseline_can_be_made_by_hand_and_only_where_it_is_looked_for() -> None:
    # YAML 1.1 reads the key "on" as true.
    triggers, gated = BASELINE[True], GITHUB[True]
    assert "workflow_dispatch" in triggers
    assert triggers["push"]["branches"] == gated["pull_request"]["branches"]
    assert GITLAB["baseline"]["rules"] == [{"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}]
    assert "$CI_MERGE_REQUEST_TARGET_BRANCH_NAME == $CI_DEFAULT_BRANCH" in GITLAB["latency"]["rules"][0]["if"]


def test_caches_hold_the_store(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEKD_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for steps in (GITHUB["jobs"]["gate"]["steps"], BASELINE["jobs"]["baseline"]["steps"], OWN):
        (cache,) = (step for step in steps if "cache" in step.get("uses", ""))
        assert Path(cache["with"]["path"].splitlines()[0]).expanduser() == Store().root
    (kept,) = GITLAB[".edgekd"]["cache"]["paths"]
    assert GITLAB["variables"]["EDGEKD_HOME"] == f"$CI_PROJECT_DIR/{kept}"


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the PATH")
CI = {"GITHUB_BASE_REF": "main", "GH_TOKEN": "token-1"}
# In a fork's pipeline: CI_PROJECT_ID is the fork.
MERGE_REQUEST = {
    "CI_PROJECT_ID": "6",
    "CI_MERGE_REQUEST_PROJECT_ID": "5",
    "CI_MERGE_REQUEST_IID": "7",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    "CI_JOB_TOKEN": "token-2",
}


@pytest.mark.parametrize(
    ("script", "downloaded"),
    [
        ("""if [ "$2" = list ]; then echo 42; else echo "$@" > asked; fi""", True),
        ("", False),  # no run yet
        ("exit 1", False),  # no such workflow yet
        ("""if [ "$2" = list ]; then echo 42; else exit 1; fi""", False),  # expired
    ],
)
def test_github_s_baseline_is_downloaded_or_told_to_be_missing(script: str, downloaded: bool, tmp_path: Path) -> None:
    done = shell(STEPS["Baseline"]["run"], tmp_path, **CI | tool(tmp_path, "gh", script))
    assert (done.returncode == 0) == downloaded
    assert ("::error title=No baseline::main has no baseline yet" in done.stdout) != downloaded
    if downloaded:
        assert (tmp_path / "asked").read_text() == "run download 42 --name baseline --dir released\n"
    names = list(STEPS)
    assert names.index("Baseline") < names.index("Build"), "before minutes of building"


@needs_curl
@pytest.mark.parametrize(
    ("own", "token"),
    [({"GITLAB_TOKEN": "token-1"}, ("PRIVATE-TOKEN", "token-1")), ({}, ("JOB-TOKEN", "token-2"))],
)
def test_gitlab_s_baseline_is_of_the_project_that_the_merge_request_is_for(own, token, forge, tmp_path: Path) -> None:
    url, kept = forge
    done = shell(FETCH, tmp_path, CI_API_V4_URL=url, **MERGE_REQUEST | own)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "released" / "dist" / "x" / "manifest.json").is_file()
    assert kept.asked == [("GET", "/projects/5/jobs/artifacts/main/download?job=baseline")]
    assert kept.tokens == [token]


@needs_curl
@pytest.mark.parametrize("status", [403, 404])
def test_gitlab_s_missing_baseline_is_told(status: int, forge, tmp_path: Path) -> None:
    url, kept = forge
    kept.failing["GET"] = status
    done = shell(FETCH, tmp_path, CI_API_V4_URL=url, **MERGE_REQUEST)
    assert done.returncode == 1
    assert "main has no baseline that this job may download" in done.stdout


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
    return shell(NOTE, folder, CI_API_V4_URL=url, GITLAB_TOKEN="token-1", **MERGE_REQUEST)


SITES = pytest.mark.parametrize("site", ["github", "gitlab"])


@needs_curl
@SITES
@pytest.mark.parametrize("others", [0, 98, 99, 150])
def test_the_second_run_updates_the_comment_of_the_first(site: str, others: int, forge, tmp_path: Path) -> None:
    """With as many comments of others before it and as many after it."""
    url, kept = forge
    kept.comments |= {2 + i: f"note {i}" for i in range(others)}
    mine = others + 2
    for words in ("first", "second & 'last' \"±\" ✓"):
        text = gate(tmp_path, words)
        before = len(kept.comments)
        done = comment(site, tmp_path, url)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(kept.comments) == before + (words == "first")
        assert kept.comments[mine] == text
        kept.comments |= {mine + 1 + i: f"later note {i}" for i in range(others)}
    assert kept.comments[1].startswith("<!-- another")
    update = "PATCH" if site == "github" else "PUT"
    assert [verb for verb, _ in kept.asked if verb != "GET"] == ["POST", update]
    last = {"github": f"/repos/a/b/issues/comments/{mine}", "gitlab": f"/projects/5/merge_requests/7/notes/{mine}"}
    assert kept.asked[-1][1] == last[site]
    assert {token.removeprefix("Bearer ") for _, token in kept.tokens} == {"token-1"}


@needs_curl
def test_a_person_s_comment_with_the_marker_is_left_alone(forge, tmp_path: Path) -> None:
    url, kept = forge
    text = gate(tmp_path, "mine")
    kept.comments |= {2: text.splitlines()[0], 3: text.splitlines()[0]}
    kept.writers |= {2: "User", 3: ""}
    assert comment("github", tmp_path, url).returncode == 0
    assert kept.comments[4] == text
    assert kept.comments[2] == kept.comments[3] == text.splitlines()[0]


@needs_curl
@SITES
def test_without_a_report_there_is_no_comment(site: str, forge, tmp_path: Path) -> None:
    url, kept = forge
    assert comment(site, tmp_path, url).returncode == 0
    assert kept.asked == []


@needs_curl
def test_without_a_token_gitlab_s_job_goes_on_without_the_comment(forge, tmp_path: Path) -> None:
    url, kept = forge
    gate(tmp_path, "words")
    assert shell(NOTE, tmp_path, CI_API_V4_URL=url, **MERGE_REQUEST).returncode == 0
    assert kept.asked == []


@needs_curl
@SITES
@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_a_comment_that_cannot_be_written_fails_in_one_line(site: str, status: int, verb: str, forge, tmp_path) -> None:
    """That the failure changes no verdict is the runner's part: what the two recipes ask of it is below."""
    url, kept = forge
    kept.failing[verb] = status
    gate(tmp_path, "words")
    done = comment(site, tmp_path, url)
    assert done.returncode != 0
    assert str(status) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(kept.comments) == [1]


def test_a_comment_s_failure_is_not_the_verdict() -> None:
    # GitHub: the step may fail, and the verdict comes whatever failed before it, once the gate gave a code.
    assert STEPS["Comment"]["continue-on-error"] is True
    assert STEPS["Verdict"]["if"] == "${{ !cancelled() && steps.gate.outputs.code }}"
    assert list(STEPS)[-1] == "Verdict"
    # GitLab: what fails after the script does not change the job's exit code, which is that of the script's last line.
    assert GATE.startswith("edgekd bench ")
    assert "merge_requests/$CI_MERGE_REQUEST_IID/notes" not in "\n".join(GITLAB["latency"]["script"])


@pytest.mark.parametrize("code", [0, 3, 6])
def test_the_gate_s_exit_code_ends_the_job_after_its_reports(code: int, tmp_path: Path) -> None:
    path = tool(tmp_path, "edgekd", f"mkdir -p gate; echo report > gate/gate.md; exit {code}") | {"BUNDLE": "x"}
    files = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    assert shell(STEPS["Gate"]["run"], tmp_path, **path, **files).returncode == 0
    assert (tmp_path / "output").read_text() == f"code={code}\n"
    assert (tmp_path / "summary").read_text() == "report\n"
    verdict = STEPS["Verdict"]["run"].replace("${{ steps.gate.outputs.code }}", str(code))
    assert shell(verdict, tmp_path).returncode == code
    assert shell(GATE, tmp_path, **path).returncode == code
    assert GITLAB["latency"]["allow_failure"] == {"exit_codes": [ExitCode.INCONCLUSIVE]}
