"""Memory for copies: kept from save to save, never more than what is in flight."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import weakref

import pytest
import torch

from ckptstore.errors import StorageError
from ckptstore.saving import staging as module
from ckptstore.saving.staging import HUGE_BYTES, SPARE_BYTES, Staging
from tests.saving.children import in_a_child as forked


def fill(buffer, value):
    buffer.memory.fill_(value)


def test_memory_is_kept_for_the_next_save():
    staging = Staging()
    buffer = staging.take(1000)
    address = buffer.memory.data_ptr()
    fill(buffer, 7)
    buffer.give_back()
    again = staging.take(900)
    assert again.memory.data_ptr() == address
    assert again.memory.eq(7).all()  # it was touched, and nobody cleared it


def test_memory_is_of_whole_pages_and_aligned():
    staging = Staging()
    for size_bytes in (0, 1, 4096, HUGE_BYTES - 1, HUGE_BYTES + 1):
        memory = staging.take(size_bytes).memory
        assert memory.dtype is torch.uint8
        assert memory.numel() >= max(1, size_bytes)
        assert memory.data_ptr() % 4096 == 0
    assert staging.take(HUGE_BYTES + 1).size_bytes == 2 * HUGE_BYTES


def test_two_saves_in_flight_have_memory_of_their_own():
    staging = Staging()
    one, other = staging.take(100), staging.take(100)
    fill(one, 1)
    fill(other, 2)
    assert one.memory.eq(1).all()
    assert staging.held_bytes == one.size_bytes + other.size_bytes


def test_what_is_given_back_twice_is_lent_once():
    staging = Staging()
    buffer = staging.take(100)
    buffer.give_back()
    buffer.give_back()
    one = staging.take(100)
    assert staging.held_bytes == one.size_bytes
    assert staging.take(100).memory.data_ptr() != one.memory.data_ptr()


def test_whoever_keeps_a_buffer_keeps_no_memory_that_was_given_back():
    staging = Staging()
    buffer = staging.take(100)
    memory = weakref.ref(buffer.memory.untyped_storage())
    buffer.give_back()
    staging.close()
    gc.collect()
    assert memory() is None
    assert buffer.size_bytes == 4096


def test_a_thousand_saves_take_what_one_takes(monkeypatch):
    made = []
    monkeypatch.setattr(module, "_map", counting(made, module._map))
    staging = Staging()
    for _ in range(1000):
        buffer = staging.take(50_000)
        buffer.give_back()
    assert len(made) == 1
    assert staging.held_bytes == buffer.size_bytes


def counting(made, original):
    def make(size_bytes):
        made.append(size_bytes)
        return original(size_bytes)

    return make


def test_a_smaller_buffer_is_gone_before_a_larger_one_is_made(monkeypatch):
    staging = Staging()
    staging.take(10_000).give_back()
    held = []
    original = module._map

    def look(size_bytes):
        held.append(sum(buffer.size_bytes for buffer in staging._free))
        return original(size_bytes)

    monkeypatch.setattr(module, "_map", look)
    large = staging.take(100_000)
    assert held == [0]
    assert staging.held_bytes == large.size_bytes < 110_000


def test_a_state_that_shrinks_lets_memory_go():
    staging = Staging()
    staging.take(3 * SPARE_BYTES).give_back()
    small = staging.take(100)
    assert staging.held_bytes == small.size_bytes <= SPARE_BYTES


def test_what_nobody_took_again_is_let_go_by_the_next_save():
    staging = Staging()
    several = [staging.take(5000) for _ in range(3)]
    for buffer in several:
        buffer.give_back()
    one = staging.take(5000)
    assert staging.held_bytes == one.size_bytes


def test_closing_lets_memory_go_and_what_is_in_flight_afterwards():
    staging = Staging()
    kept, lent = staging.take(100), staging.take(100)
    kept.give_back()
    staging.close()
    assert staging.held_bytes == lent.size_bytes
    lent.give_back()
    assert staging.held_bytes == 0
    assert staging.take(100).size_bytes >= 100  # and it can go on


def test_no_memory_is_said_with_what_to_do():
    with pytest.raises(
        StorageError, match=r"no memory for a copy of a state of \d+ bytes.*save\(\)"
    ):
        Staging().take(2**62)


def test_memory_can_be_written_to_outside_of_the_mode_it_was_made_in():
    with torch.inference_mode():
        buffer = Staging().take(100)
    fill(buffer, 1)
    assert not buffer.memory.is_inference()


def test_a_forked_child_has_memory_of_its_own():
    staging = Staging()
    buffer = staging.take(100)
    fill(buffer, 3)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=in_a_child, args=(staging, buffer, answers))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert answers.get() == 4096
    # Where the system lets it: pages that both share would be copied as the parent writes.
    assert answers.get() is (sys.platform != "linux")
    assert buffer.memory.eq(3).all()
    assert staging.held_bytes == buffer.size_bytes


def in_a_child(staging, buffer, answers):
    is_seen = bool(buffer.memory.any())
    own = staging.take(100)
    buffer.give_back()  # the parent's, which is nothing to the child
    fill(own, 9)
    staging.close()  # of what is kept, which the parent's is not
    answers.put(staging.held_bytes)
    answers.put(is_seen)


@pytest.mark.parametrize("verb", ["take", "close", "held_bytes"])
def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent(verb):
    staging = Staging()
    buffer = staging.take(100)

    def use() -> None:
        {"take": lambda: staging.take(100), "close": staging.close}.get(
            verb, lambda: staging.held_bytes
        )()

    with staging._lock:  # as a saving thread of the parent may have it just then
        ended = forked(use)

    assert ended == 0
    assert staging.held_bytes == buffer.size_bytes


class Cuda:
    """Stands in for the calls that pin memory."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def cudart(self):
        return self

    def cudaHostRegister(self, *args):  # noqa: N802 - CUDA's name
        self.calls.append(("register", *args))
        return self.answer

    def cudaHostUnregister(self, *args):  # noqa: N802 - CUDA's name
        self.calls.append(("unregister", *args))


def test_pinned_memory_is_pinned_once_and_unpinned_before_it_goes(monkeypatch):
    cuda = Cuda(0)
    monkeypatch.setattr(torch.cuda, "cudart", cuda.cudart)
    staging = Staging()
    buffer = staging.take(100, pinned=True)
    address, size_bytes = buffer.memory.data_ptr(), buffer.size_bytes
    buffer.give_back()
    staging.take(100, pinned=True).give_back()
    staging.take(100).give_back()  # pinned memory does for anything
    assert cuda.calls == [("register", address, size_bytes, 1)]
    staging.close()
    assert cuda.calls[1:] == [("unregister", address)]


def test_memory_that_cannot_be_pinned_is_used_as_it_is(monkeypatch):
    cuda = Cuda(2)
    monkeypatch.setattr(torch.cuda, "cudart", cuda.cudart)
    asked = []

    def failing(*_, **options):  # CUDA tells the next kernel of what failed
        asked.append(options)
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "zeros", failing)
    staging = Staging()
    buffer = staging.take(100, pinned=True)
    assert not buffer.is_pinned
    buffer.give_back()
    staging.take(100, pinned=True).give_back()
    staging.close()
    assert [call[0] for call in cuda.calls] == ["register"]  # and it isn't tried again
    assert asked == [{"device": "cuda"}]  # so that no kernel of the training is the next


def test_memory_that_is_not_pinned_is_none_for_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "cudart", Cuda(0).cudart)
    staging = Staging()
    staging.take(100).give_back()
    assert staging.take(100, pinned=True).is_pinned
    staging.close()
