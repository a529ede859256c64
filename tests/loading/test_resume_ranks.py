"""Resuming in a process group: rank 0 picks the version, all restore it or none does."""

from __future__ import annotations

import pytest

from tests.loading.rank_works import WORKS
from tests.loading.ranks import together


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What two ranks answered to each of the works, all done by one pair of processes."""
    return together(tmp_path_factory.mktemp("ranks"), WORKS)


def test_all_ranks_restore_the_same_version(answers):
    first, second = answers["all_restore"]

    assert first.startswith("default@2 2 {'epoch': 1} ")
    assert second == first


def test_all_ranks_agree_that_there_is_nothing(answers):
    assert answers["none_there"] == ["False True", "False True"]


def test_all_ranks_fall_back_to_the_same_version(answers):
    first, second = (answer.split() for answer in answers["newest_is_damaged"])

    assert first[:2] == ["default@1", "1"]  # rank 0 alone warns
    assert second[:2] == ["default@1", "0"]
    assert first[2] == second[2]


def test_if_one_rank_does_not_fit_none_is_touched(answers):
    first, second = answers["one_does_not_fit"]

    assert first.startswith("StorageError True ")
    assert "another rank could not restore version 2, so none did" in first
    assert second.startswith("MismatchError True ")


def test_if_the_loading_code_of_one_rank_refuses_every_rank_is_as_it_was(answers):
    first, second = answers["loading_code_of_one_refuses"]

    assert first.startswith("StorageError True ")
    assert "another rank could not restore version 1, so none did" in first
    assert second.startswith("MismatchError True ")
    assert "other: 'the key' is in the module, and loading did not find it" in second


def test_if_rank_zero_fails_all_do(answers):
    first, second = answers["rank_zero_fails"]

    assert first.startswith("IntegrityError True ")
    assert second.startswith("StorageError True ")
    assert "rank 0 could not read a version" in second


def test_no_rank_waits_for_one_that_raised_something_unforeseen(answers):
    assert answers["a_warning_is_an_error"] == ["FallbackWarning True", "StorageError True"]


def test_if_one_rank_gives_a_wrong_option_all_raise(answers):
    first, second = (answer.splitlines() for answer in answers["one_gives_a_wrong_option"])
    own = ["ArgumentError True"] * 3 + ["InvalidNameError True", "ArgumentError True"]
    others = ["StorageError True"] * 5

    assert first == own + others
    assert second == others + own


def test_a_part_that_was_not_saved_is_left_on_the_rank_that_asked_or_stops_all(answers):
    first, second = answers["one_asks_for_what_was_not_saved"]

    assert first.startswith("StorageError True default@2 0 () ")
    assert second.startswith("VersionNotFoundError True default@2 1 ('ema',) ")
    assert first.split()[-1] == second.split()[-1]


def test_a_training_of_several_ranks_goes_on_with_the_same_bits(answers):
    assert answers["wrapped_goes_on"] == ["True True True"] * 2


def test_a_save_off_rank_zero_shows_the_guard(answers):
    first, second = answers["save_everywhere"]

    assert first == "default@1"
    assert second.startswith("NotRankZeroError: save() was called on rank 1 of 2")
    assert "if torch.distributed.get_rank() == 0:\n        store.save(…)" in second
