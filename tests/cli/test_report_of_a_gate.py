"""``edgekd report`` on the document of a comparison."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command import edgekd

EXAMPLE = Path(__file__).parents[1] / "report" / "gate_example.json"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLE, tmp_path / "gate.json"))


def test_in_a_log(gate: Path, tmp_path: Path) -> None:
    done = edgekd("report", str(gate), home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.strip().startswith("latency"))
    assert row.split()[-1] == "pass", "a row is one line where no terminal says how wide it is"
    assert "✕ digits on onnxruntime-cpu: regression of file size" in done.stdout


def test_json_is_the_document(gate: Path, tmp_path: Path) -> None:
    done = edgekd("report", str(gate), "--json", home=tmp_path)
    assert json.loads(done.stdout) == json.loads(EXAMPLE.read_text())


@pytest.mark.parametrize(("name", "begin"), [("x.md", "<!-- edgekd-bench"), ("x.xml", "<?xml")])
def test_written_by_the_ending(gate: Path, tmp_path: Path, name: str, begin: str) -> None:
    done = edgekd("report", str(gate), "--out", name, home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote {name}\n")
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith(begin)
    if name.endswith(".xml"):
        assert ElementTree.fromstring(text.encode()).attrib["failures"] == "1"


def test_what_is_no_document_of_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    done = edgekd("report", "manifest.json", home=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edgekd: manifest.json: is JSON, but no document of a gate\n  give a gate.json")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["nothing", "nothing/gate.json"])
def test_what_is_not_there_is_told(tmp_path: Path, place: str) -> None:
    done = edgekd("report", place, home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    told = "a bundle's folder, or the gate.json of a comparison (or the folder of bench --out)"
    assert done.stderr == f"edgekd: {place}: No such file or folder\n  give {told}\n"


def test_the_folder_of_a_comparison_is_its_document(gate: Path, tmp_path: Path) -> None:
    done = edgekd("report", ".", "--json", home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(EXAMPLE.read_text())
    # Reports kept in a bundle's own folder do not hide the bundle.
    (tmp_path / "manifest.json").write_text("{}")
    done = edgekd("report", ".", "--json", home=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "manifest.json: schema: is missing" in done.stderr


@pytest.mark.parametrize("options", [[], ["--format", "markdown"]])
def test_json_and_a_file_at_once(gate: Path, tmp_path: Path, options: list[str]) -> None:
    done = edgekd("report", "gate.json", "--json", "--out", "x.md", *options, home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "wrote x.md\n")
    assert json.loads(done.stdout) == json.loads(EXAMPLE.read_text())
    assert (tmp_path / "x.md").read_text(encoding="utf-8").startswith("<!-- edgekd-bench")


def test_json_and_a_format_on_stdout_are_refused(gate: Path, tmp_path: Path) -> None:
    done = edgekd("report", "gate.json", "--json", "--format", "junit", home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgekd: --json and --format both write to stdout\n  leave one out")


def test_history_writes_its_page_and_tells_its_series(gate: Path, tmp_path: Path) -> None:
    done = edgekd("history", "gate.json", "gate.json", "--out", "history.html", home=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "wrote history.html\n")
    assert done.stdout.splitlines()[0].startswith("digits on onnxruntime-cpu; Intel")
    assert "left out: 1 given twice" in done.stdout
    assert (tmp_path / "history.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    told = json.loads(edgekd("history", "gate.json", "--json", home=tmp_path, cwd=tmp_path).stdout)
    assert len(told["series"][0]["runs"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gate.json", "nothing.json"], "nothing.json: No such file"),
        (["gate.json", "--out", "history.pdf"], "history.pdf: the history is a page"),
        ([], "Missing argument"),
    ],
)
def test_history_of_bad_input(gate: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = edgekd("history", *arguments, home=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json"]
