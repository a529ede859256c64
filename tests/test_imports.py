"""What importing brings along: a command line or a notebook should not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NEWCOMERS = """
import importlib, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def brought_by(*modules: str) -> set[str]:
    """The top-level packages that importing *modules* in a fresh interpreter brings."""
    done = subprocess.run(
        [sys.executable, "-c", NEWCOMERS, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules_under(place: str = "") -> list[str]:
    """The module or the modules of the package at *place*, e.g. ``format``."""
    root = ROOT / "ckptstore" / place
    files = [*root.rglob("*.py")] or [root.with_suffix(".py")]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def test_import_brings_nothing_but_the_standard_library():
    assert brought_by("ckptstore") - sys.stdlib_module_names == {"ckptstore"}


@pytest.mark.parametrize("place", ["errors", "format", "storage", "entry", "catalog"])
def test_lower_layers_bring_no_torch(place):
    assert "torch" not in brought_by(*modules_under(place))


def test_no_module_but_s3s_own_brings_an_optional_package():
    own = "ckptstore.storage.s3"  # imported once a store is opened on S3
    brought = brought_by(*(name for name in modules_under() if not name.startswith(own)))
    assert "torch" in brought
    assert not brought & {"s3fs", "botocore", "pandas", "matplotlib", "IPython"}
