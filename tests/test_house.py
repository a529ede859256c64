"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ckptstore"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [
    *MODULES,
    *(
        file
        for folder in ("migrations", "tests", "examples")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ),
]
MOST_LINES = 350

RUNS_CODE = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
THE_ONE_THAT_UNPICKLES = PACKAGE / "importing" / "unpickling.py"


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def code_lines(source: str) -> int:
    """How many lines there are beside docstrings: those are the reference, and may be long."""
    documented = 0
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documented += node.end_lineno - node.lineno + 1
    return len(source.splitlines()) - documented


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_module_is_short(module):
    lines = code_lines(module.read_text())
    assert lines <= MOST_LINES, f"{lines} lines: does it still explain one thing?"


@pytest.mark.parametrize(
    "module", [file for file in MODULES if not file.name.startswith("_")], ids=named
)
def test_module_has_a_test_file_of_its_name(module):
    folder = ROOT / "tests" / module.parent.relative_to(PACKAGE)
    wanted = f"test_{module.stem}.py"
    found = [*folder.glob(wanted), *folder.glob(f"test_{module.stem}_*.py")]
    assert found, f"nothing tests {named(module)}: write {named(folder / wanted)}"


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_module_says_what_it_is(module):
    says = ast.get_docstring(ast.parse(module.read_text()))
    assert says, f"{named(module)} has no docstring"


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_nothing_is_left_to_do(source):
    marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X"]
    assert not [mark for mark in marks if mark in source.read_text()]


IGNORE = re.compile(r"# (noqa: [A-Z0-9, ]*[A-Z0-9]|type: ignore\[[a-z, -]+\])")


def unexplained(source: str) -> list[int]:
    """The lines with an ignore and no reason, neither after it nor as a comment right above."""
    comments = {
        token.start[0]: token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    return [
        number
        for number, token in comments.items()
        if re.match(r"# (noqa|type: ignore)", token.string)
        and not IGNORE.sub("", token.string).strip(" -#")
        and not (number - 1 in comments and lines[number - 2].lstrip().startswith("#"))
    ]


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_every_ignore_has_its_reason(source):
    assert not unexplained(source.read_text()), "say why, beside it or right above"


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("x = 1  # noqa: PLR2004", [1]),
        ("x = 1  # noqa: PLR2004, SLF001", [1]),
        ("x = 1  # type: ignore[assignment] # noqa: SLF001", [1]),
        ("y = 1  # above\nx = 1  # noqa: PLR2004", [2]),
        ("x = 1  # noqa: PLR2004 - HTTP's number", []),
        ("x = 1  # type: ignore[assignment] # as a list", []),
        ("# HTTP's number\nx = 1  # noqa: PLR2004", []),
        ("x = '# noqa: PLR2004'", []),
    ],
)
def test_an_ignore_without_a_reason_is_found(source, bad):
    assert unexplained(source) == bad


@pytest.mark.parametrize(
    "module", [*MODULES, *sorted((ROOT / "migrations").rglob("*.py"))], ids=named
)
def test_nothing_that_was_read_is_run(module):
    tree = ast.parse(module.read_text())
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [
            *([node.module or ""] if isinstance(node, ast.ImportFrom) else []),
            *(alias.name for alias in node.names),
        ]
    }
    attributes = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not called & RUNS_CODE
    if module == THE_ONE_THAT_UNPICKLES:
        assert imported & UNPICKLES == {"pickle"}
        assert attributes & {"torch.load", "torch.save", "yaml.load"} == {"torch.load"}
        return
    assert not imported & UNPICKLES
    assert not attributes & {"torch.load", "torch.save", "yaml.load"}
