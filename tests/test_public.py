"""The public names: few, sorted, and exactly those that ``__all__`` lists."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import ckptstore


def test_all_is_sorted():
    assert list(ckptstore.__all__) == sorted(set(ckptstore.__all__))


def test_dir_lists_all_and_the_version():
    public = {name for name in dir(ckptstore) if not name.startswith("_")}
    assert public | {"__version__"} == {*ckptstore.__all__, "__version__"}


@pytest.mark.parametrize("name", ckptstore.__all__)
def test_name_in_all_is_there_and_documented(name):
    found = getattr(ckptstore, name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert found.__module__.startswith("ckptstore."), f"{name} is not ours"
        assert inspect.getdoc(found), f"{name} has no docstring"


def test_what_is_defined_in_the_package_is_listed():
    ours = {
        name
        for name, value in vars(ckptstore).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("ckptstore")
    }
    assert ours <= set(ckptstore.__all__)


def test_star_import_gives_the_same_names():
    code = "from ckptstore import *; print(*sorted(n for n in dir() if not n.startswith('__')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [n for n in ckptstore.__all__ if not n.startswith("__")]


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        ckptstore.no_such_name  # noqa: B018 -- the access is what is tested


def test_version_is_one_of_pep_440():
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", ckptstore.__version__)
