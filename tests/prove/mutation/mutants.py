"""A guard taken out of a copy of the package, and the tests that must notice."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[3]
COPIED = ("ckptstore", "migrations", "tests", "examples", "docs", "pyproject.toml", "README.md")
# A mutant that waits for something that never comes is no better than one that survives.
TIMEOUT_S = 240
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
TESTS_FAILED = 1  # pytest's exit status; others say that it did not get as far
# Imported once, before the forks: it takes longer than most of the tests.
HEAVY: tuple[str, ...] = (
    "torch",
    "hypothesis.stateful",
    "sqlalchemy.orm",
    "alembic.command",
    "s3fs",
    "boto3",
)
HEAVY += ("moto.server", "typer.testing", "rich.table", "safetensors.torch", "pandas")


class MutationError(AssertionError):
    """A mutant survives, or does not fit the code any more."""


@dataclass(frozen=True)
class Mutant:
    """One guard, and how the code looks without it."""

    name: str
    """What is taken out."""
    file: str
    """The module, below ``ckptstore/``."""
    cut: str
    """The source that goes; it stands in the module exactly once."""
    put: str
    """What stands in its place."""
    by: str
    """The tests of which at least one must fail, separated by blanks."""

    @property
    def tests(self) -> list[str]:
        """The tests of which at least one must fail."""
        return self.by.split()

    def source(self, package: Path) -> str:
        """Return the module without its guard.

        Raises:
            MutationError: The guard is not there exactly once.
        """
        source = (package / self.file).read_text(encoding="utf-8")
        found = source.count(self.cut)
        if found != 1:
            raise MutationError(
                f"{self.name}: {self.file} has {found} times, instead of once:\n{self.cut}"
            )
        return source.replace(self.cut, self.put)


@dataclass(frozen=True)
class Result:
    """What the tests said."""

    failed: str | None
    """The test that failed first, None if none did."""
    seconds: float


def warm_up() -> None:
    """Import what all tests need, and nothing of the package."""
    for name in HEAVY:
        importlib.import_module(name)


class Copy:
    """A copy of the package and its tests, in which guards are taken out one at a time."""

    def __init__(self, folder: Path, of: Path = ROOT) -> None:
        self.folder = folder
        for name in COPIED:
            if (of / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
                shutil.copytree(of / name, folder / name, ignore=ignored)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(of / name, folder / name)

    @contextmanager
    def without(self, mutant: Mutant) -> Iterator[None]:
        """Take a guard out for as long as the block lasts."""
        path = self.folder / "ckptstore" / mutant.file
        source = mutant.source(self.folder / "ckptstore")
        whole = path.read_text(encoding="utf-8")
        path.write_text(source, encoding="utf-8")
        self._forget_compiled(path)
        try:
            yield
        finally:
            path.write_text(whole, encoding="utf-8")
            self._forget_compiled(path)

    def run(self, tests: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Result:
        """Run some tests in a fork of this process until one fails.

        Raises:
            MutationError: They could not be run.
        """
        began = time.monotonic()
        log = self.folder / "tests.log"
        child = os.fork()
        if child == 0:
            self._become_pytest(tests, log)
        status = _wait(child, began + timeout_s)
        seconds = time.monotonic() - began
        said = log.read_text(encoding="utf-8", errors="replace")
        if status is None:
            raise MutationError(f"no end after {timeout_s} s: {' '.join(tests)}\n{said[-2000:]}")
        if status == 0:
            return Result(None, seconds)
        match = FAILED.search(said)
        if status != TESTS_FAILED or match is None:
            raise MutationError(f"the tests could not be run (status {status}):\n{said[-4000:]}")
        return Result(match[1], seconds)

    def _become_pytest(self, tests: Sequence[str], log: Path) -> NoReturn:
        """Run pytest on the copy, in this process, which has imported neither of them yet."""
        status = 3
        try:
            os.setpgid(0, 0)
            with log.open("wb") as file:
                for fd in (1, 2):
                    os.dup2(file.fileno(), fd)
            os.chdir(self.folder)
            for name in [name for name in sys.modules if re.match(r"(tests|ckptstore)\b", name)]:
                del sys.modules[name]
            # A process that is spawned imports what stands here.
            sys.modules["__main__"] = ModuleType("__main__")
            sys.path[:] = [str(self.folder), *(p for p in sys.path if p not in ("", str(ROOT)))]
            # Options of a pytest that this runs in are not for the one in here.
            for name in [name for name in os.environ if name.startswith("PYTEST_")]:
                del os.environ[name]
            os.environ |= {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
            options = ["-x", "-q", "-rfE", "--assert=plain", "-p", "no:cacheprovider"]
            options += ["-p", "no:xdist"]
            status = int(pytest.main([*options, "-o", f"timeout={TIMEOUT_S // 2}", *tests]))
        except BaseException:  # noqa: BLE001 - whatever it is, the parent shows it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    @staticmethod
    def _forget_compiled(path: Path) -> None:
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def check_named(mutants: Iterable[Mutant]) -> list[str]:
    """Return what is wrong with a table: guards that are not there, tests that are not there."""
    wrong = []
    for mutant in mutants:
        try:
            mutant.source(ROOT / "ckptstore")
        except (MutationError, OSError) as error:
            wrong.append(str(error))
        wrong += [
            f"{mutant.name}: there is no {test}" for test in mutant.tests if not _is_there(test)
        ]
    return wrong


def _wait(child: int, deadline: float) -> int | None:
    """Return a child's exit status, None if it had to be killed."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)


def _is_there(test: str) -> bool:
    file, *names = test.split("::")
    if not names or not (ROOT / file).is_file():
        return False
    source = (ROOT / file).read_text(encoding="utf-8")
    return all(re.search(rf"\b{re.escape(name)}\b", source) for name in names)
