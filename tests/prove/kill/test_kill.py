"""The short form: every moment that differs of a save in a folder, some of all else."""

from __future__ import annotations

import pytest

from tests.prove.kill.__main__ import strided
from tests.prove.kill.harness import distinct_points, rig, run
from tests.prove.kill.operations import OPERATIONS

WHOLE = ("save, a new process",)
OTHERS = [name for name in OPERATIONS if name not in WHOLE]
# Primes: whatever an operation repeats, the moments differ.
STRIDES = {"local": 29, "s3": 89}


@pytest.fixture(scope="module", params=["local", "s3"])
def killing(request, tmp_path_factory):
    """A rig for stores of each kind."""
    with rig(request.param, tmp_path_factory.mktemp("kill")) as made:
        yield made


def broken_by_killing(killing, name, *, stride):
    operation = OPERATIONS[name]
    start = killing.start(operation)
    points = distinct_points(killing.points(operation, start))
    chosen = strided(points, stride, min(stride, len(points)) // 2)
    result = run(killing, operation, start, chosen)
    assert sum(result.outcomes.values()) + len(result.violations) == len(chosen)
    return result.violations


@pytest.mark.parametrize("name", WHOLE)
def test_killed_at_any_moment_it_keeps_its_promises(killing, name):
    stride = 1 if killing.storage == "local" else STRIDES["s3"]
    assert broken_by_killing(killing, name, stride=stride) == []


@pytest.mark.parametrize("name", OTHERS)
def test_killed_at_some_moments_it_keeps_its_promises(killing, name):
    assert broken_by_killing(killing, name, stride=STRIDES[killing.storage]) == []
