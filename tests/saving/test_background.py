"""Hashing beside the caller: the same digests, whatever the sizes, and no thread left behind."""

from __future__ import annotations

import threading

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.saving.background import MAX_AHEAD, WORTH_A_THREAD_BYTES, Hasher

SMALL, LARGE = b"a", bytes(WORTH_A_THREAD_BYTES)


def threads():
    return [thread.name for thread in threading.enumerate() if "ckptstore-hash" in thread.name]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([b"", SMALL, LARGE, LARGE + b"x"]), max_size=3 * MAX_AHEAD))
def test_digests_come_in_order_whatever_the_sizes(pieces):
    with Hasher() as hasher:
        found = list(hasher.digests_ahead([memoryview(piece) for piece in pieces]))
    assert found == [blake3(piece).hexdigest() for piece in pieces]
    assert threads() == []


def test_a_small_save_starts_no_thread():
    with Hasher() as hasher:
        list(hasher.digests_ahead([memoryview(SMALL)] * 100))
        assert hasher.beside(blake3(), memoryview(SMALL)) is None
        assert threads() == []


def test_hashing_runs_ahead_but_not_far():
    started = []

    class Views(list):
        def __iter__(self):
            for view in super().__iter__():
                started.append(1)
                yield view

    with Hasher() as hasher:
        digests = hasher.digests_ahead(Views([memoryview(LARGE)] * 50))
        assert len(started) == MAX_AHEAD
        next(digests)
        assert len(started) == MAX_AHEAD + 1


def test_a_running_digest_takes_pieces_in_their_order():
    state = blake3()
    with Hasher() as hasher:
        for piece in (LARGE, SMALL, LARGE + b"y"):
            future = hasher.beside(state, memoryview(piece))
            if future is not None:
                future.result()
    assert state.hexdigest() == blake3(LARGE + SMALL + LARGE + b"y").hexdigest()


def test_an_error_of_the_caller_ends_the_thread():
    def save():
        with Hasher() as hasher:
            digests = hasher.digests_ahead([memoryview(LARGE)] * 20)
            next(digests)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save()
    assert threads() == []
