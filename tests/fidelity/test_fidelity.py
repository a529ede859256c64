"""Whatever trains goes on bit for bit: one test for each row of the page."""

from __future__ import annotations

import pytest

from tests.fidelity.page import CASES, PAGE, row


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_it_goes_on_bit_for_bit(tmp_path, case):
    checked = case.run(tmp_path)
    assert row(case, checked) in PAGE.read_text().splitlines(), "run python -m tests.fidelity"
