"""The queue of a store: order, places, room, failures told once, waiting that ends."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from ckptstore.errors import ArgumentError, StillPendingError, StorageError
from ckptstore.saving import pending
from ckptstore.saving.job import Job
from ckptstore.saving.pending import Queue, is_worker, wait_for

URL = "memory://queue"
PATIENCE_S = 60.0


class Work:
    """Work that begins when the queue comes to it and ends when the test says so."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.gone = 0
        self.fault = fault
        self.by_worker = False

    def __call__(self) -> str:
        self.by_worker = is_worker()
        self.begun.set()
        assert self.end.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return "saved"

    def let_go(self) -> None:
        self.gone += 1


say = pending._say


def put(queue: Queue, work: Work, size_bytes: int = 0) -> Job:
    assert queue.enter()
    assert queue.reserve(size_bytes)
    job = Job("the save of run 'r'", work, work.let_go, size_bytes)
    queue.put(job)
    return job


def done(fault: BaseException | None = None) -> Work:
    work = Work(fault)
    work.end.set()
    return work


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue(URL, max_pending=3)
    yield made
    assert made.wait(PATIENCE_S)
    assert made.take_failures() == []
    assert made not in pending._unsettled


def test_what_a_save_made_is_its_result(queue):
    work = done()
    job = put(queue, work)

    assert queue.result(job, PATIENCE_S) == "saved"
    assert work.by_worker
    assert work.gone == 1


def test_saves_are_made_in_the_order_in_which_they_came(queue):
    first, second = Work(), done()
    jobs = [put(queue, first), put(queue, second)]
    assert first.begun.wait(PATIENCE_S)

    assert not second.begun.is_set()
    first.end.set()
    assert [queue.result(job, PATIENCE_S) for job in jobs] == ["saved", "saved"]


def test_no_thread_is_left_once_all_is_saved(queue):
    put(queue, done())
    worker = queue._worker
    assert queue.wait(PATIENCE_S)

    if worker is not None:
        worker.join(PATIENCE_S)
        assert not worker.is_alive()
    assert queue._worker is None


def test_one_too_many_waits_for_a_place():
    queue, first = Queue(URL), Work()
    put(queue, first)
    entered = threading.Event()
    thread = threading.Thread(target=lambda: (queue.enter(), entered.set()))
    thread.start()

    assert not entered.wait(0.05)
    first.end.set()
    assert entered.wait(PATIENCE_S)
    thread.join()
    queue.leave()


def test_one_too_many_is_skipped_where_that_is_said():
    queue, first = Queue(URL, when_busy="skip"), Work()
    put(queue, first)

    assert not queue.enter()
    first.end.set()
    assert queue.wait(PATIENCE_S)
    assert queue.enter()
    queue.leave()


def test_copies_wait_for_room_in_the_budget():
    queue, first = Queue(URL, max_pending=5, staging_bytes=100), Work()
    put(queue, first, 60)
    assert queue.reserve(40)
    reserved = threading.Event()
    thread = threading.Thread(target=lambda: (queue.reserve(50), reserved.set()))
    thread.start()

    assert not reserved.wait(0.05)
    first.end.set()
    assert reserved.wait(PATIENCE_S)
    thread.join()
    assert queue._held_bytes == 90


def test_copies_without_room_are_skipped_where_that_is_said():
    queue, first = Queue(URL, max_pending=5, staging_bytes=100, when_busy="skip"), Work()
    put(queue, first, 60)

    assert not queue.reserve(41)
    assert queue.reserve(40)
    first.end.set()
    assert queue.wait(PATIENCE_S)


def test_a_failure_is_raised_by_who_asks_for_the_result_and_by_nobody_else(queue):
    job = put(queue, done(StorageError("no disk")))

    with pytest.raises(StorageError, match="no disk"):
        queue.result(job, PATIENCE_S)
    queue.raise_failure()
    queue.settle()


def test_a_failure_nobody_asked_for_is_raised_once(queue):
    job = put(queue, done(StorageError("no disk")))
    queue.wait(PATIENCE_S)

    with pytest.raises(StorageError, match="no disk") as caught:
        queue.raise_failure()
    assert "the save of run 'r', called at " in caught.value.__notes__[0]
    assert __file__ in caught.value.__notes__[0]
    queue.raise_failure()
    with pytest.raises(StorageError, match="no disk"):
        queue.result(job)


def test_a_failure_says_which_call_it_was_and_only_to_a_save_that_it_has_not_begun(queue):
    def notes(ask: Callable[[], object]) -> list[str]:
        with pytest.raises(StorageError) as caught:
            ask()
        return list(caught.value.__notes__)

    job = put(queue, done(StorageError("no disk")))
    queue.wait(PATIENCE_S)
    (to_the_next,) = notes(queue.raise_failure)
    (to_who_asks,) = notes(lambda: queue.result(job))
    put(queue, done(StorageError("no disk")))
    queue.wait(PATIENCE_S)
    (to_who_closes,) = notes(queue.raise_failures)

    assert to_the_next.endswith("failed in the background; this call has not begun")
    assert to_who_asks.endswith("failed in the background")
    assert to_who_closes.endswith("failed in the background")


def test_of_several_failures_each_save_raises_one_and_the_end_all(queue):
    for name in ("first", "second", "third"):
        put(queue, done(StorageError(name)))
    queue.wait(PATIENCE_S)

    with pytest.raises(StorageError, match="first"):
        queue.raise_failure()
    with pytest.raises(StorageError, match="second") as caught:
        queue.settle()
    assert "third" in caught.value.__notes__[0]


def test_a_failed_save_gives_its_memory_back_and_the_next_one_is_made(queue):
    work = done(StorageError("no disk"))
    failed, following = put(queue, work), put(queue, done())

    assert queue.result(following, PATIENCE_S) == "saved"
    assert work.gone == 1
    with pytest.raises(StorageError):
        queue.result(failed)


@pytest.mark.parametrize("fault", [None, StorageError("no disk")])
def test_a_copy_that_can_not_be_let_go_of_is_told_and_the_next_save_is_made(queue, fault):
    def let_go() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    assert queue.enter()
    job = Job("the save of run 'r'", done(fault), let_go, 0)
    queue.put(job)

    with pytest.raises((RuntimeError, StorageError)) as caught:
        queue.result(job, PATIENCE_S)
    assert "device-side assert" in str(caught.value) + str(caught.value.__notes__)
    assert ("saved was 'saved'" in caught.value.__notes__[0]) is (fault is None)
    assert queue.result(put(queue, done()), PATIENCE_S) == "saved"


def test_a_failure_keeps_nothing_of_what_the_save_held(queue):
    held: list[weakref.ref[Work]] = []

    def within() -> None:
        large = Work()
        held.append(weakref.ref(large))
        raise StorageError("no disk")

    def save() -> None:
        large = Work()
        held.append(weakref.ref(large))
        try:
            within()
        except StorageError as error:
            raise StorageError("not saved") from error

    assert queue.enter()
    job = Job("the save of run 'r'", save, lambda: None, 0)
    queue.put(job)

    assert queue.wait_for(job, PATIENCE_S)
    gc.collect()
    assert [ref() for ref in held] == [None, None]
    with pytest.raises(StorageError, match="not saved"):
        queue.result(job)


@pytest.mark.parametrize("is_over", [False, True])
def test_an_error_that_somebody_was_told_of_is_told_nobody_else(queue, is_over):
    error = StorageError("torn")
    work = Work(error)
    job = put(queue, work)
    if is_over:
        work.end.set()
        assert queue.wait_for(job, PATIENCE_S)
    queue.was_told(job, error)
    work.end.set()
    assert queue.wait_for(job, PATIENCE_S)

    queue.settle()
    with pytest.raises(StorageError, match="torn"):
        queue.result(job)


def test_another_error_than_the_one_that_was_told_is_told(queue):
    job = put(queue, done(StorageError("no disk")))
    queue.was_told(job, StorageError("torn"))

    with pytest.raises(StorageError, match="no disk"):
        queue.settle()


def test_whoever_waits_is_told_when_that_was_too_short(queue):
    work = Work()
    job = put(queue, work)

    assert not queue.wait(0.01)
    with pytest.raises(StillPendingError, match="goes on"):
        queue.result(job, 0.01)
    work.end.set()
    assert queue.result(job, PATIENCE_S) == "saved"


def test_readers_wait_for_saves_of_any_store_at_that_place(queue):
    work = Work()
    put(queue, work)
    over = threading.Event()
    thread = threading.Thread(target=lambda: (wait_for(URL), over.set()))
    thread.start()

    assert not over.wait(0.05)
    wait_for("memory://elsewhere")
    work.end.set()
    assert over.wait(PATIENCE_S)
    thread.join()


def test_a_folder_is_that_place_whatever_link_leads_to_it(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    queue, work = Queue(str(tmp_path / "folder")), Work()
    put(queue, work)
    over = threading.Event()
    thread = threading.Thread(target=lambda: (wait_for(str(tmp_path / "link")), over.set()))
    thread.start()

    assert not over.wait(0.05)
    work.end.set()
    assert over.wait(PATIENCE_S)
    thread.join()


def test_readers_wait_for_what_is_under_way_and_not_for_what_comes_later(queue):
    first, second = Work(), Work()
    put(queue, first)
    over = threading.Event()
    thread = threading.Thread(target=lambda: over.set() if queue.wait(PATIENCE_S) else None)
    assert first.begun.wait(PATIENCE_S)
    thread.start()
    while not vars(queue._changed)["_waiters"]:
        threading.Event().wait(0.001)
    put(queue, second)
    first.end.set()

    assert over.wait(PATIENCE_S)
    assert not second.end.is_set()
    second.end.set()
    thread.join()


def test_a_thread_that_saves_waits_for_nobody(queue):
    other, looked = Queue(URL), []

    def look() -> None:
        wait_for(URL)  # for itself, for ever
        looked.append(True)

    held = Work()
    put(other, held)
    assert queue.enter()
    queue.put(Job("a save that reads", look, lambda: None, 0))

    assert queue.wait(PATIENCE_S)
    assert looked == [True]
    held.end.set()
    other.wait(PATIENCE_S)


def test_where_no_thread_can_be_started_the_caller_saves(queue, monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    job = put(queue, done())

    assert job.is_done
    assert not is_worker()


def test_an_error_on_its_way_is_told_while_saves_are_waited_for(queue, monkeypatch, capsys):
    monkeypatch.setattr(pending, "WORD_S", 0.01)
    work, error = Work(), ValueError("no such layer")
    put(queue, work)
    monkeypatch.setattr(pending, "_say", lambda words: (say(words), work.end.set()))

    assert queue.wait_beside(error)
    said = capsys.readouterr().err
    assert "ValueError (no such layer) ends the block" in said
    assert "once 1 save(s) are made" in said


def test_where_saves_end_soon_nothing_is_said_of_an_error(queue, capsys):
    put(queue, done())

    assert queue.wait_beside(ValueError("no such layer"))
    assert capsys.readouterr().err == ""


def test_an_interrupt_takes_no_errors_place(queue, monkeypatch):
    work, error = Work(), ValueError("no such layer")
    put(queue, work)
    monkeypatch.setattr(pending, "WORD_S", 0.01)
    monkeypatch.setattr(pending, "_say", interrupted)

    assert not queue.wait_beside(error)
    assert error.__notes__ == [f"ckptstore: interrupted; 1 save(s) into {URL} go on"]
    work.end.set()


def interrupted(_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("waits", ["result", "wait", "enter", "reserve"])
def test_an_interrupt_while_the_thread_is_started_leaves_nobody_waiting_for_it(monkeypatch, waits):
    def interrupted(_: threading.Thread) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    queue, work = Queue(URL, staging_bytes=1), done()
    job = Job("the save of run 'r'", work, work.let_go, 1)
    assert queue.enter()
    assert queue.reserve(1)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.put(job)
    {
        "result": lambda: queue.result(job, PATIENCE_S),
        "wait": lambda: queue.wait(PATIENCE_S),
        "enter": queue.enter,
        "reserve": lambda: queue.reserve(1),
    }[waits]()

    assert job.is_done


def test_two_threads_do_not_make_the_same_saves(queue):
    first, second = Work(), Work()
    jobs = [put(queue, first), put(queue, second)]
    assert first.begun.wait(PATIENCE_S)
    queue._work_off()  # comes back at once, as another one is at it

    assert not second.begun.is_set()
    first.end.set()
    second.end.set()
    assert [queue.result(job, PATIENCE_S) for job in jobs] == ["saved", "saved"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_pending": 0},
        {"max_pending": True},
        {"max_pending": 1.5},
        {"when_busy": "drop"},
        {"staging_bytes": -1},
        {"staging_bytes": "1 GB"},
    ],
)
def test_what_can_not_be_is_refused_by_name(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Queue(URL, **wrong)
