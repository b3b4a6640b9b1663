"""The user's own code by name: found from the current folder, and every way to fail told as his."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd.errors import BadData, BadModel, Missing
from edgekd.user_code import call, code_digest, load_callable


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in sys.modules if name.split(".")[0] == "my_code"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "my_code"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "neighbour.py").write_text("VALUE = 7")
    (package / "data.py").write_text(
        "import os\nNUMBER = 3\nclass Maker:\n    pass\n"
        "def make(size=1):\n    from my_code.neighbour import VALUE\n    return {'size': size, 'value': VALUE}\n"
        "def fail():\n    return [][1]\ndef leave():\n    raise SystemExit(0)\n"
        "def refuse():\n    from edgekd.errors import Missing\n    raise Missing('no camera')\n"
    )
    return tmp_path


def test_a_callable_of_the_current_folder_and_its_neighbours() -> None:
    assert load_callable("my_code.data:make", BadData)(size=2) == {"size": 2, "value": 7}
    assert call("my_code.data:make", BadData, size=3)["size"] == 3
    assert load_callable("my_code.data:Maker", BadModel).__name__ == "Maker"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("my_code.dota:make", "there is no module 'my_code.dota'"),
        ("your_code:make", "there is no module 'your_code'"),
        ("my_code.data:mek", "my_code.data has no callable 'mek'"),
        ("my_code.data:NUMBER", "my_code.data has no callable 'NUMBER'"),
        ("my_code.data", "names no callable"),
        ("my_code.data:", "names no callable"),
        (":make", "names no callable"),
        (".data:make", "names no callable"),
        ("my_code/data.py:make", "names no callable"),
        ("", "names no callable"),
    ],
)
def test_a_name_that_leads_nowhere(spec: str, told: str) -> None:
    for error in (BadData, BadModel):
        with pytest.raises(error) as caught:
            load_callable(spec, error)
        assert told in caught.value.what
        assert caught.value.where == spec
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import surely_not_there", "needs 'surely_not_there', which is missing"),
        # Its name begins like the module's own.
        ("import my_code_x", "needs 'my_code_x', which is missing"),
        ("import my", "needs 'my', which is missing"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(0)", "SystemExit"),
    ],
)
def test_a_module_that_does_not_import(here: Path, text: str, told: str) -> None:
    (here / "my_code" / "bad.py").write_text(text)
    with pytest.raises(BadData) as caught:
        load_callable("my_code.bad:make", BadData)
    assert told in caught.value.what
    # For --debug.
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("name", "told"), [("fail", "IndexError"), ("leave", "SystemExit")])
def test_a_callable_that_fails(name: str, told: str) -> None:
    with pytest.raises(BadData, match=f"your code failed: {told}"):
        call(f"my_code.data:{name}", BadData)
    with pytest.raises(BadData, match="TypeError"):
        call("my_code.data:make", BadData, no_such_argument=1)


def test_an_error_of_edgekd_passes_through() -> None:
    with pytest.raises(Missing, match="no camera"):
        call("my_code.data:refuse", BadData)


def test_the_digest_of_code_is_of_the_whole_package(here: Path) -> None:
    before = code_digest("my_code.data:make")
    assert code_digest("my_code.neighbour:make") == before
    (here / "beside.py").write_text("")
    (here / "my_code" / "notes.txt").write_text("")
    assert code_digest("my_code.data:make") == before
    (here / "my_code" / "neighbour.py").write_text("VALUE = 8")
    after = code_digest("my_code.data:make")
    (here / "my_code" / "inner").mkdir()
    (here / "my_code" / "inner" / "deep.py").write_text("")
    assert len({before, after, code_digest("my_code.data:make")}) == 3


def test_the_digest_of_a_plain_modules_code_is_of_its_folder(here: Path) -> None:
    (here / "my_module.py").write_text("import my_helper")
    (here / "my_helper.py").write_text("1")
    before = code_digest("my_module:make")
    (here / "my_helper.py").write_text("2")
    after = code_digest("my_module:make")
    (here / "my_code" / "data.py").write_text("")
    assert before != after == code_digest("my_module:make")


def test_the_digest_of_code_runs_none_of_it(here: Path) -> None:
    (here / "my_code" / "__init__.py").write_text("raise RuntimeError('no camera')")
    assert code_digest("my_code.data:make") != "absent"
    assert "my_code" not in sys.modules


@pytest.mark.parametrize("spec", ["your_code:make", ":make", "", "a/b:make", "..:make", "sys:exit"])
def test_code_that_is_not_there_has_no_digest(spec: str) -> None:
    assert code_digest(spec) == "absent"


def test_a_finder_of_the_users_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, *_: object) -> None:
            raise OSError("the share is away")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert code_digest("my_code.data:make") == "absent"
