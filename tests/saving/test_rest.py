"""What is copied later: piece by piece, by whoever comes first, once, and all of it."""

from __future__ import annotations

import threading

import pytest
import torch

from ckptstore.saving import rest as module
from ckptstore.saving.rest import Pair, Rest
from tests.saving.children import in_a_child


def pair(length=100, value=1):
    return Pair(
        torch.full((length,), value, dtype=torch.uint8), torch.zeros(length, dtype=torch.uint8)
    )


def sound():
    return None


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 16)


@pytest.mark.parametrize("hurried", [False, True])
def test_all_is_copied(hurried):
    pairs = [pair(100), pair(1), pair(0), pair(32)]
    rest = Rest(pairs, sound)
    assert not rest.is_done
    rest.finish(hurried=hurried)
    assert rest.is_done
    assert rest.failure is None
    assert all(torch.equal(each.source, each.copy) for each in pairs)
    assert rest.copied_s > 0


def test_dense_memory_is_copied_as_it_lies():
    source = torch.arange(60.0).view(3, 4, 5).permute(2, 0, 1)
    for hurried in (False, True):
        copy = torch.empty_strided(source.shape, source.stride())
        Rest([Pair(source, copy)], sound).finish(hurried=hurried)
        assert torch.equal(copy, source)


class Stopping:
    """Stops the worker in the midst of its first piece, until it may go on."""

    def __init__(self, monkeypatch):
        self.reached, self.may_go_on = threading.Event(), threading.Event()
        self._copy = module._copy_alone
        monkeypatch.setattr(module, "_copy_alone", self)

    def __call__(self, piece):
        self.reached.set()
        assert self.may_go_on.wait(60)
        self._copy(piece)


def test_who_is_in_a_hurry_copies_what_the_worker_has_not_begun(monkeypatch):
    stopping = Stopping(monkeypatch)
    each = pair(100)
    rest = Rest([each], sound)
    worker = threading.Thread(target=rest.finish, kwargs={"hurried": False})
    worker.start()
    assert stopping.reached.wait(60)
    hurried = threading.Thread(target=rest.finish, kwargs={"hurried": True})
    hurried.start()
    while not each.copy[16:].all():  # all but the worker's piece
        hurried.join(0.001)
    assert hurried.is_alive()  # waits for that
    assert not rest.is_done
    stopping.may_go_on.set()
    hurried.join()
    worker.join()
    assert rest.is_done
    assert each.copy.all()


def test_an_interrupted_piece_is_copied_again(monkeypatch):
    each = pair(100)
    rest = Rest([each], sound)

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "_copy_with_all_cores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rest.finish(hurried=True)
    assert not rest.is_done
    rest.finish(hurried=False)
    assert each.copy.all()
    assert rest.failure is None


def test_what_copying_raises_ends_it_and_is_kept(monkeypatch):
    def failing(_):
        raise RuntimeError("no copy")

    monkeypatch.setattr(module, "_copy_alone", failing)
    rest = Rest([pair(100)], lambda: pytest.fail("nothing was copied"))
    rest.finish(hurried=False)
    assert rest.is_done
    assert str(rest.failure) == "no copy"
    rest.finish(hurried=True)  # nobody waits for it


def test_copies_are_checked_once_when_all_are_there():
    calls = []
    each = pair(100)

    def check():
        calls.append(bool(each.copy.all()))
        return ValueError("torn")

    rest = Rest([each], check)
    rest.finish(hurried=False)
    rest.finish(hurried=True)
    assert calls == [True]
    assert str(rest.failure) == "torn"


def test_sources_are_let_go_when_they_are_copied():
    import weakref

    source = torch.ones(100, dtype=torch.uint8)
    gone = weakref.ref(source)
    rest = Rest([Pair(source, torch.zeros(100, dtype=torch.uint8))], sound)
    del source
    assert gone() is not None
    rest.finish(hurried=False)
    assert gone() is None


def test_giving_up_waits_for_who_is_copying(monkeypatch):
    stopping = Stopping(monkeypatch)
    each = pair(100)
    rest = Rest([each], lambda: pytest.fail("it was given up"))
    worker = threading.Thread(target=rest.finish, kwargs={"hurried": False})
    worker.start()
    assert stopping.reached.wait(60)
    giving_up = threading.Thread(target=rest.give_up)
    giving_up.start()
    giving_up.join(0.01)
    assert giving_up.is_alive()
    stopping.may_go_on.set()
    giving_up.join()
    worker.join()
    assert rest.is_done
    assert not each.copy[16:].any()
    rest.finish(hurried=True)  # nothing is left for anybody


def test_a_forked_child_waits_for_nobody_of_its_parent(monkeypatch):
    stopping = Stopping(monkeypatch)
    each = pair(100)
    rest = Rest([each], sound)
    worker = threading.Thread(target=rest.finish, kwargs={"hurried": False})
    worker.start()
    assert stopping.reached.wait(60)

    def finish() -> None:
        assert rest.is_done
        rest.finish(hurried=True)
        rest.give_up()

    with rest._turn:  # as another thread of the parent may have it just then
        ended = in_a_child(finish)
    stopping.may_go_on.set()
    worker.join()

    assert ended == 0
    assert torch.equal(each.copy, each.source)
