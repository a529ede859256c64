"""The exception tree is drawn where it is defined; the drawing must be true."""

from __future__ import annotations

import inspect
import re

import pytest

from ckptstore import errors

DRAWING = (errors.__doc__ or "").split("::\n", 1)[1].splitlines()
LINE = re.compile(r"^    ([│ ├└─]*)(\w+)\b.*?(?:\((\w+)\))?$")
ROOTS = {"CkptStoreError": "Exception", "CkptStoreWarning": "UserWarning"}


def drawn() -> dict[str, set[str]]:
    """Each class in the drawing, with the class it hangs from and the builtin it names."""
    bases: dict[str, set[str]] = {}
    above: list[str] = []
    for found in filter(None, map(LINE.match, DRAWING)):
        branch, name, builtin = found.groups()
        depth = len(branch) // 4
        parent = above[depth - 1] if depth else ROOTS[name]
        above[depth:] = [name]
        bases[name] = {parent, builtin} - {None}
    return bases


def defined() -> list[type[Exception]]:
    return [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]


@pytest.mark.parametrize("error", defined())
def test_class_hangs_where_it_is_drawn(error):
    assert {base.__name__ for base in error.__bases__} == drawn()[error.__name__]


def test_everything_drawn_is_defined():
    assert set(drawn()) == {error.__name__ for error in defined()}
