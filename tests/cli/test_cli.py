"""All commands together: help, documentation, errors, and what none of them brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import ckptstore
from ckptstore.cli import app
from tests.docs.make_cli_reference import PAGE, reference

GROUP: Any = get_command(app)
COMMANDS = dict(GROUP.commands)
PROGRAM = Path(sys.executable).with_name("ckptstore")

WITH_MODULES = """
import atexit, sys
atexit.register(lambda: print(*sorted(name.partition(".")[0] for name in sys.modules)))
from ckptstore.cli import main
main()
"""


def started(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program itself, in a process of its own."""
    return subprocess.run(
        [PROGRAM, *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_all_it_takes_have_help(name):
    command = COMMANDS[name]
    assert command.help
    assert [param.name for param in command.params if not param.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_all_it_takes_are_documented(name):
    page = PAGE.read_text()
    assert f"## ckptstore {name}\n" in page
    section = page.partition(f"## ckptstore {name}\n")[2].partition("\n## ")[0]
    for param in COMMANDS[name].params:
        word = param.metavar if param.param_type_name == "argument" else param.opts[0]
        assert f"- `{word}" in section, f"{word} of {name} is not in {PAGE.name}"


def test_page_is_what_the_program_says():
    assert PAGE.read_text() == reference(), "run: python -m tests.docs.make_cli_reference"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown(typed, name):
    done = typed(name, "--help")
    assert done.exit_code == 0
    assert COMMANDS[name].help.split("\n")[0] in done.stdout


def test_version_is_printed(typed):
    assert typed("--version").stdout == f"ckptstore {ckptstore.__version__}\n"


def test_no_command_shows_help(typed):
    assert "Commands:" in typed().output


@pytest.mark.parametrize(
    "words",
    [
        ("history", "STORE"),
        ("history", "STORE", "--json"),
        ("show", "STORE", "sweep/lr=0.1@prod"),
        ("best", "STORE", "sweep/*"),
        ("runs", "STORE"),
        ("migrate", "CATALOG"),
    ],
    ids=" ".join,
)
def test_commands_bring_neither_torch_nor_numpy(place, tmp_path, words):
    real = {"STORE": str(place), "CATALOG": f"sqlite:///{tmp_path}/catalog.sqlite3"}
    done = subprocess.run(
        [sys.executable, "-c", WITH_MODULES, *(real.get(word, word) for word in words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    brought = set(done.stdout.splitlines()[-1].split())
    assert "sqlalchemy" in brought
    assert not brought & {"torch", "numpy", "pandas", "s3fs"}


@pytest.mark.parametrize(
    "words", [("--version",), ("--help",), ("history", "--help")], ids=" ".join
)
def test_asking_for_help_brings_no_database(words):
    done = subprocess.run(
        [sys.executable, "-c", WITH_MODULES, *words], capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.splitlines()[-1].split()) & {"torch", "sqlalchemy", "fsspec"}


@pytest.mark.parametrize(
    "words", [("history",), ("runs",), ("best",), ("show", "@1")], ids=lambda words: words[0]
)
def test_reading_where_no_store_is_fails_and_creates_nothing(typed, tmp_path, words):
    command, *rest = words
    done = typed(command, tmp_path / "nowhere", *rest)

    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Error: {tmp_path}/nowhere holds no store: it has no ckptstore.json; the first save there "
        "creates one\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("show", "STORE", "sweep/lr=0.1@99"), 1, "has no version 99; the newest is 4"),
        (("show", "STORE", "sweep/lr=0.1@nobody"), 1, "has no tag 'nobody'; its tags: prod"),
        (("show", "STORE", "../etc/passwd"), 2, "is no name for a run"),
        (("show", "STORE", "@1"), 1, "has several runs"),
        (("best", "STORE", "sweep/*", "--metric", "loss"), 2, "say --mode 'min' or --mode 'max'"),
        (("best", "STORE", "sweep/*", "--metric", "loss", "--mode", "min"), 1, "metrics recorded:"),
        (("best", "STORE", "--mode", "up"), 2, "'up' is not one of"),
        (("history", "STORE", "nobody"), 1, "has no run 'nobody'; runs: 'sweep/lr=0.01'"),
        (("history", "s3://user:password@bucket/x"), 2, "must hold no credentials"),
        (("history", "STORE", "--option", "anon=true"), 2, "a folder takes none"),
        (("history", "STORE", "--nonsense"), 2, "--nonsense"),
        (("nonsense",), 2, "nonsense"),
        (("history",), 2, "STORE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_are_a_message_and_a_code(typed, place, words, code, says):
    done = typed(*(place if word == "STORE" else word for word in words))
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "password@" not in done.stderr


def test_error_is_printed_as_text(typed, place):
    done = typed("show", place, "\x1b[31m[red]@1")
    assert done.exit_code == 2
    assert "\x1b" not in done.stderr
    assert "[red]" in done.stderr


def test_program_is_installed(place):
    done = started("runs", place)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "sweep/lr=0.01\nsweep/lr=0.1\n",
        "",
    )


def test_program_ends_with_the_code_of_the_error(tmp_path):
    done = started("runs", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {tmp_path} holds no store")
    assert "Traceback" not in done.stderr


def test_output_that_the_terminal_has_no_letters_for_is_spelled_out(tmp_path):
    with ckptstore.Store(tmp_path) as store:
        store.save(extra=1, metrics={"損失": 1.0})
    done = started("history", tmp_path, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert r"\u640d\u5931" in done.stdout
