"""What one process knows of its group; tests/test_guard_ranks.py has the rest, with two of them."""

from __future__ import annotations

from ckptstore.state.ranks import are_several
from tests.guard_works import the_largest_is_known_to_all
from tests.loading.ranks import together


def test_a_process_without_a_group_is_alone():
    assert not are_several()


def test_what_the_ranks_of_a_group_know_of_each_other(tmp_path):
    answers = together(tmp_path, [the_largest_is_known_to_all])

    assert answers["the_largest_is_known_to_all"] == ["True 11 5 (True, False)"] * 2
