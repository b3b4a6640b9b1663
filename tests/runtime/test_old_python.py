"""What travels must run on Python 3.10 (JetPack 6), which edgekd itself does not support."""

import ast
from pathlib import Path

import pytest

import edgekd.runtime
from edgekd.bundle.pack import MAIN

FILES = sorted(Path(edgekd.runtime.__file__).parent.glob("*.py"))
# New in 3.11 or later, by the last name in an expression or an import.
NEW = {
    *("file_digest", "UTC", "StrEnum", "tomllib", "ExceptionGroup", "TaskGroup", "assert_never", "assert_type"),
    *("Self", "Never", "LiteralString", "override", "batched", "chdir", "walk_up", "process_group", "Buffer"),
    *("add_note", "reveal_type", "Required", "NotRequired", "sumprod", "deprecated", "cbrt", "exp2"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_syntax_and_names_are_of_python_3_10(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords if word.arg}
    assert not names & NEW


def test_the_command_that_is_written_too():
    ast.parse(MAIN, feature_version=(3, 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_are_relative_or_the_standard_library_numpy_or_a_runtime(path):
    import sys

    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "openvino", "tensorrt"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in allowed
