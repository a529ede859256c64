"""What is shipped: built, installed where nothing else is, and used there."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ckptstore

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Run *command* away from the checkout, as somebody who has never seen it would."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from that sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


def needed_by(wheel: Path) -> set[str]:
    """The distributions that *wheel* requires without any extra, and those that they require."""
    seen: set[str] = set()
    pending = list(requirements(next(metadata.distributions(path=[str(wheel)]))))
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += requirements(metadata.distribution(name))
    return seen


def requirements(distribution: metadata.Distribution) -> Iterator[str]:
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def lend(distribution: metadata.Distribution, to: Path) -> None:
    """Link what *distribution* installed into *to*, another folder of site packages."""
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        link = to / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))).resolve())


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it requires, and nothing else.

    What it requires is linked from here, not downloaded: torch alone is hundreds of megabytes.
    """
    env = tmp_path_factory.mktemp("elsewhere") / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=env.parent)
    python = env / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    run(*pip, wheel, cwd=env.parent)
    site = Path(
        run(python, "-c", "import sysconfig as s; print(s.get_path('purelib'))", cwd=env).strip()
    )
    for name in needed_by(wheel):
        lend(metadata.distribution(name), site)
    return env


def test_wheel_holds_the_package_and_its_migrations(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    shipped = {str(file.relative_to(ROOT)) for file in (ROOT / "ckptstore").rglob("*.py")}
    shipped |= {
        f"ckptstore/{file.relative_to(ROOT)}" for file in (ROOT / "migrations").rglob("*.py")
    }
    assert "ckptstore/migrations/env.py" in shipped
    assert shipped | {"ckptstore/py.typed"} <= set(names)


def test_wheel_holds_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    kinds = r"\.py|\.typed|\.mako|\.md"
    strangers = [
        n for n in names if not re.match(rf"ckptstore/.*({kinds})$|ckptstore-.*\.dist-info/", n)
    ]
    assert strangers == []


def test_sdist_can_be_tested(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "pyproject.toml",
        "constraints.txt",
        "Makefile",
        "README.md",
        "migrations/env.py",
        "tests/test_packaging.py",
    } <= names


def test_sdist_holds_every_page_that_the_readme_links(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    pages = {link.partition("#")[0] for link in links if not link.startswith("http")} - {""}
    assert {"CHANGELOG.md", "docs/format.md"} <= pages
    assert pages <= names


def test_wheel_says_what_it_is(wheel):
    says = next(metadata.distributions(path=[str(wheel)])).metadata
    assert says["Name"] == "ckptstore"
    assert says["Version"] == ckptstore.__version__
    assert says["License-Expression"] == "Apache-2.0"
    assert says["Requires-Python"] == ">=3.11"


def test_every_requirement_has_a_tested_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {Requirement(line).name.lower().replace("_", "-") for line in lines if line[0] != "#"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {Requirement(line).name for line in listed} - {"ckptstore"}
    assert "torch" in declared
    assert declared <= pinned


def test_installed_package_is_the_one_imported(elsewhere):
    where = run(
        elsewhere / "bin" / "python",
        "-c",
        "import ckptstore as c; print(c.__file__)",
        cwd=elsewhere,
    )
    assert Path(where.strip()).is_relative_to(elsewhere)


def test_environment_holds_no_optional_package(elsewhere):
    code = "import importlib.util as u; print(u.find_spec('pandas'), u.find_spec('s3fs'))"
    assert run(elsewhere / "bin" / "python", "-c", code, cwd=elsewhere).split() == ["None", "None"]


def test_installed_command_migrates_a_catalog(elsewhere, tmp_path):
    catalog = tmp_path / "catalog.sqlite3"

    for _ in range(2):  # the second finds nothing to do
        run(elsewhere / "bin" / "ckptstore", "migrate", f"sqlite:///{catalog}", cwd=tmp_path)

    with sqlite3.connect(catalog) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    database.close()
    assert len(tables - {"alembic_version"}) > 1


SAVE_AND_LOAD = """
import torch
from ckptstore import Store
model = torch.nn.Linear(3, 2)
with Store("checkpoints") as store:
    store.save(model, epoch=1, val_loss=0.5, model_config={"in_features": 3, "out_features": 2})
    back = store.load_best(torch.nn.Linear, device="cpu")
assert torch.equal(back.weight, model.weight)
print("same")
"""


def test_installed_package_saves_and_loads(elsewhere, tmp_path):
    assert run(elsewhere / "bin" / "python", "-c", SAVE_AND_LOAD, cwd=tmp_path).split() == ["same"]
