"""No guard can go unnoticed: the table of them fits the code, and a few are taken out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.prove.mutation.mutants import ROOT, Copy, MutationError, check_named
from tests.prove.mutation.table import MUTANTS

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
FEW = [
    "fsync of a file",
    "exclusive linking",
    "comparison of what was read back",
    "digest of a tensor",
    "a pack's own grace period",
]


def test_every_guard_stands_where_the_table_says_and_has_its_tests():
    assert check_named(MUTANTS) == []
    assert len(BY_NAME) == len(MUTANTS) >= 40


def test_a_table_that_does_not_fit_the_code_is_noticed():
    mutant = replace(MUTANTS[0], cut="this stands nowhere", by="tests/nowhere.py::test_nothing")

    wrong = check_named([mutant])

    assert "has 0 times, instead of once" in wrong[0]
    assert "there is no tests/nowhere.py::test_nothing" in wrong[1]


def test_a_guard_is_taken_out_of_a_copy_and_put_back(tmp_path):
    copy, mutant = Copy(tmp_path / "copy"), MUTANTS[0]
    module = tmp_path / "copy" / "ckptstore" / mutant.file
    before = module.read_text()

    with copy.without(mutant):
        assert module.read_text() == before.replace(mutant.cut, mutant.put) != before
        assert (ROOT / "ckptstore" / mutant.file).read_text() == before
        with pytest.raises(MutationError):  # it is not there a second time
            mutant.source(tmp_path / "copy" / "ckptstore")
    assert module.read_text() == before


def prove(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.prove.mutation", "--jobs", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_a_guard_a_test_fails():
    done = prove(*(word for name in FEW for word in ("--only", name)))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(FEW)} guards taken out, 0 not missed" in done.stdout


def test_a_guard_nobody_knows_is_no_proof():
    done = prove("--only", "nothing of that name")

    assert done.returncode == 1
    assert "no guard is called 'nothing of that name'" in done.stdout
