"""Whatever trains goes on bit for bit: one test for each row of the page."""

from __future__ import annotations

import pytest

from tests.fidelity import data, optimizers, schedulers, wrappers

CASES = [*optimizers.CASES, *schedulers.CASES, *wrappers.CASES, *data.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_it_goes_on_bit_for_bit(tmp_path, case):
    assert case.run(tmp_path)
