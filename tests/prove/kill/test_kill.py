"""The short form: every moment that differs of the commonest verbs locally, some of all else."""

from __future__ import annotations

import pytest

from tests.prove.kill.harness import distinct_points, rig, run
from tests.prove.kill.operations import OPERATIONS

WHOLE = ("save, the first", "save, a new process", "save_package", "tag")
OTHERS = [name for name in OPERATIONS if name not in WHOLE]
# Primes: whatever an operation repeats, the moments differ.
STRIDES = {"local": 17, "s3": 61}


@pytest.fixture(scope="module", params=["local", "s3"])
def killing(request, tmp_path_factory):
    """A rig for stores of each kind."""
    with rig(request.param, tmp_path_factory.mktemp("kill")) as made:
        yield made


def broken_by_killing(killing, name, *, stride):
    operation = OPERATIONS[name]
    start = killing.start(operation)
    points = distinct_points(killing.points(operation, start))
    # The last is when all is done and only the telling is left.
    first = min(stride, len(points)) // 2
    chosen = points[::stride] if stride == 1 else [*points[first::stride], points[-1]]
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
