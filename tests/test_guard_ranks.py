"""Several ranks under a guard: a signal that one of them gets is known to all, and rank 0 saves."""

from __future__ import annotations

import pytest

from tests.guard_works import TOLD_AT, WORKS
from tests.loading.ranks import together


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What two ranks answered to each of the works, all done by one pair of processes."""
    return together(tmp_path_factory.mktemp("ranks"), WORKS)


@pytest.mark.parametrize("work", ["rank_one_is_told", "rank_zero_is_told"])
def test_all_ranks_stop_at_the_same_step_whoever_is_told(answers, work):
    at = TOLD_AT + 1  # asked for at one boundary, known at the next

    assert answers[work] == [f"75, in step {at}; digits@1 of step {at}; 0 warning(s)"] * 2


def test_without_a_signal_all_train_to_the_end(answers):
    said = "trained to the end, in step 8; nothing; 0 warning(s)"

    assert answers["nobody_is_told"] == [said, said]


def test_if_rank_zero_can_not_save_the_others_say_so(answers):
    first, second = answers["rank_zero_can_not_save"]

    assert "cannot hold a store" in first
    assert second.startswith(
        "StorageError: run 'digits': a signal came and rank 0 could not save; see its error"
    )


def test_near_the_deadline_rank_zero_saves_less_and_says_so(answers):
    first, second = answers["little_time_is_left"]

    assert first.endswith("1 warning(s)")
    assert second.endswith("0 warning(s)")
    assert first.startswith("75, in step 3; digits@1 of step 3")
