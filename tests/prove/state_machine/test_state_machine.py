"""Whatever is done to a store, in whatever order: what a dictionary would promise holds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.prove.state_machine.rules import MACHINES

SHORT = settings(
    max_examples=10,
    stateful_step_count=18,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("where", MACHINES)
def test_every_promise_holds_after_every_step(where):
    machine = MACHINES[where]
    machine.figures.clear()

    run_state_machine_as_test(machine, settings=SHORT)

    assert machine.figures["steps"] > 50
    assert machine.figures["loads"] > 100
    assert machine.figures["crashes"] > 0
    assert machine.figures["interleavings"] > 0
