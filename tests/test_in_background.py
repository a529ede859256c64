"""Saves that go on while the training does, as a store makes them."""

from __future__ import annotations

import copy
import gc
import os
import threading
import warnings
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import (
    ArgumentError,
    NotRankZeroError,
    RunWarning,
    SaveSkippedError,
    StateWarning,
    StorageError,
    TornSnapshotError,
    UnsupportedValueError,
    UsageError,
)
from tests.holding import PATIENCE_S, Held
from tests.loading.trainings import Training

STATE = {"w": torch.arange(6.0)}


def state(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((1000,), value)}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", catalog="sqlite://") as opened:
        yield opened


def test_what_is_saved_is_the_state_at_the_call(store):
    weights = state(1.0)
    with Held(store):
        pending = store.save_async(weights, epoch=1)
        weights["w"].fill_(2.0)

    saved = pending.result(PATIENCE_S)
    assert saved.epoch == 1
    assert torch.equal(saved.state("model")["w"], state(1.0)["w"])


def test_a_save_in_the_background_equals_one_that_blocks(store):
    training = Training()
    training.epoch()

    blocking = store.save(**training.parts(), run="a", loss=0.5, tags=["x"], extra={"k": (1, 2)})
    pending = store.save_async(
        **training.parts(), run="b", loss=0.5, tags=["x"], extra={"k": (1, 2)}
    )

    saved = pending.result(PATIENCE_S)
    digests = [
        (part.name, part.kind, part.size_bytes, part.class_name) for part in saved.head.parts
    ]
    assert digests == [
        (part.name, part.kind, part.size_bytes, part.class_name) for part in blocking.head.parts
    ]
    for part in set(saved.parts) - {"rng"}:
        for key, tensor in saved.tensors(part).items():
            assert torch.equal(tensor[...], blocking.tensors(part)[key][...])
    assert (saved.metrics, saved.extra, saved.tags) == ({"loss": 0.5}, {"k": (1, 2)}, ("x",))
    assert saved.environment["devices"] == blocking.environment["devices"]
    assert store.tags("b") == {"x": "b@1"}


def test_an_overlapped_save_has_the_state_before_the_step(store):
    training = Training()
    training.epoch()
    before = {key: value.clone() for key, value in training.model.state_dict().items()}

    with Held(store):
        pending = store.save_async(**training.parts(), overlap=True)
        training.epoch()

    saved = pending.result(PATIENCE_S).state("model")
    assert all(torch.equal(saved[key], value) for key, value in before.items())


def test_a_write_past_the_optimizer_before_all_is_copied_fails_the_save(store):
    held = Held(store)
    first = store.save_async(state(0.0))
    held.wait()
    store._pending._max_pending = 2  # so that the worker is busy while the second is copied
    net = torch.nn.Linear(3, 3)
    torn = store.save_async(
        net, torch.optim.SGD(net.parameters(), lr=0.1), overlap=True, model_config={}
    )
    with torch.no_grad():
        net.weight.zero_()
    held.let_go()

    with pytest.raises(TornSnapshotError):
        torn.result(PATIENCE_S)
    first.result(PATIENCE_S)
    assert len(store.history()) == 1


def test_whoever_is_told_of_it_by_waiting_for_the_copy_is_told_once(store):
    held = Held(store)
    store.save_async(state(0.0))
    held.wait()
    store._pending._max_pending = 2
    net = torch.nn.Linear(3, 3)
    torn = store.save_async(
        net, torch.optim.SGD(net.parameters(), lr=0.1), overlap=True, model_config={}
    )
    with torch.no_grad():
        net.weight.zero_()
    with pytest.raises(TornSnapshotError):
        torn.wait_copied()
    held.let_go()

    assert store.save(state(1.0)).version == 2
    with pytest.raises(TornSnapshotError):
        torn.result()


@pytest.mark.parametrize("fault", [None, StorageError("the disk is gone")])
def test_a_save_that_is_kept_keeps_no_copy(store, fault):
    with Held(store, fault):
        pending = store.save_async(state(1.0))
        assert pending._copy is not None
        memory = weakref.ref(pending._copy._buffer.memory.untyped_storage())
    pending.wait(PATIENCE_S)
    store._staging().close()
    gc.collect()

    assert memory() is None
    if fault is not None:
        with pytest.raises(StorageError):
            pending.result()


@pytest.mark.parametrize("take", [ForkingPickler.dumps, copy.copy, copy.deepcopy])
def test_a_save_under_way_can_not_be_taken_elsewhere(store, take):
    pending = store.save_async(state(1.0), run="r")

    with pytest.raises(UsageError, match=r"the save of run 'r' .*result\(\)"):
        take(pending)


def test_overlap_is_true_or_false(store):
    with pytest.raises(ArgumentError, match="overlap='yes'"):
        store.save_async(state(1.0), overlap="yes")


def test_once_all_is_copied_anything_may_be_written_to(store):
    net = torch.nn.Linear(3, 3)
    was = net.weight.detach().clone()
    with Held(store):
        pending = store.save_async(
            net, torch.optim.SGD(net.parameters(), lr=0.1), overlap=True, model_config={}
        )
        pending.wait_copied()
        with torch.no_grad():
            net.weight.zero_()

    assert torch.equal(pending.result(PATIENCE_S).state("model")["weight"], was)


def test_versions_come_in_the_order_of_the_calls_over_all_runs(tmp_path):
    with Store(tmp_path / "store", max_pending=6) as store:
        for epoch in range(3):
            store.save_async(state(epoch), run="a", epoch=epoch)
            store.save_async(state(epoch), run="b", epoch=epoch)

    assert [(each.ref, each.epoch) for each in store.history("a")] == [
        ("a@1", 0),
        ("a@2", 1),
        ("a@3", 2),
    ]
    assert store.get("a@2").parent == "a@1"


def test_a_blocking_save_comes_after_those_in_the_background(store):
    held = Held(store)
    store.save_async(state(1.0), epoch=1)
    held.wait()
    threading.Timer(0.05, held.let_go).start()

    assert store.save(state(2.0), epoch=2).version == 2


# ---------------------------------------------------------------- what is checked when


def test_what_can_not_be_kept_is_refused_at_the_call_and_holds_no_place(store):
    with pytest.raises(UnsupportedValueError):
        store.save_async(state(1.0), extra=object())

    assert store.save_async(state(1.0)).result(PATIENCE_S).version == 1


def test_off_rank_zero_nothing_is_saved(store, monkeypatch):
    monkeypatch.setattr("ckptstore.saving.save.rank", lambda: 1)

    with pytest.raises(NotRankZeroError):
        store.save_async(state(1.0))


def test_keep_is_applied_after_each_save(tmp_path):
    with Store(tmp_path / "store", catalog="sqlite://", max_pending=4) as store:
        run = store.run("r", keep=Keep(last=1, best=1), monitor="loss", mode="min")
        for epoch in range(4):
            run.save_async(state(epoch), epoch=epoch, loss=-epoch)

    assert [each.epoch for each in store.history("r") if each.retired is None] == [3]


def test_only_and_dtype_mean_what_they_mean_in_save(store):
    net = torch.nn.Linear(3, 3)
    net.bias.requires_grad_(False)  # noqa: FBT003 - torch's own
    saved = store.save_async(
        net, only="trainable", dtype={"model": torch.bfloat16}, model_config={}
    ).result(PATIENCE_S)

    assert saved.left_out() == ("bias",)
    assert saved.tensors("model")["weight"].dtype == torch.bfloat16


def test_warnings_name_the_line_that_saved(tmp_path):
    Store(tmp_path / "store", catalog="sqlite://").save(state(0.0))

    with (
        pytest.warns(RunWarning) as caught,
        Store(tmp_path / "store", catalog="sqlite://") as store,
    ):
        store.save_async(state(1.0))

    assert caught[0].filename == __file__


# ---------------------------------------------------------------- too many, too much


def test_a_save_that_is_skipped_says_so(tmp_path):
    with Store(tmp_path / "store", catalog="sqlite://", when_busy="skip") as store:
        with Held(store):
            first = store.save_async(state(1.0), epoch=1)
            second = store.save_async(state(2.0), epoch=2)
        assert (first.skipped, second.skipped, second.done()) == (False, True, True)
        assert second.wait()
        second.wait_copied()
        with pytest.raises(SaveSkippedError, match="max_pending="):
            second.result()

    assert [each.epoch for each in store.history()] == [1]


def test_a_state_larger_than_the_whole_budget_is_saved_at_once_and_warned_of_once(tmp_path):
    with Store(tmp_path / "store", catalog="sqlite://", staging_bytes=1000) as store:
        with pytest.warns(StateWarning, match="staging_bytes="):
            pending = store.save_async(state(1.0), epoch=1, rng=False)
        assert pending.done()
        assert pending.result().timings.copied_bytes == 0
        assert store.save_async(state(2.0), epoch=2, rng=False).result().version == 2


def test_what_parts_share_takes_its_room_in_the_budget_once(tmp_path):
    weights = state(1.0)
    with Store(tmp_path / "store", catalog="sqlite://", staging_bytes=5000) as store:
        with Held(store):
            pending = store.save_async(weights, extra=weights, epoch=1, rng=False)
            held_bytes = store._pending._held_bytes
        assert pending.result(PATIENCE_S).timings.copied_bytes == held_bytes
        assert 4000 <= held_bytes < 5000


@pytest.mark.parametrize(
    "wrong",
    [
        {"extra": object()},
        {"epoch": "one"},
        {"tags": "tag"},
        {"only": 5},
        {"dtype": {"none": torch.float16}},
    ],
)
def test_what_is_wrong_with_a_call_that_is_skipped_is_raised_all_the_same(tmp_path, wrong):
    with Store(tmp_path / "store", catalog="sqlite://", when_busy="skip") as store:
        with Held(store):
            store.save_async(state(1.0), epoch=1)
            with pytest.raises(UsageError):
                store.save_async(**{"model": state(2.0), **wrong})
        assert store.save_async(state(3.0), epoch=3).wait(PATIENCE_S)


def test_a_call_that_is_skipped_waits_for_nobody(tmp_path):
    options = {"catalog": "sqlite://", "when_busy": "skip"}
    with Store(tmp_path / "store", **options) as store, Held(store) as held:
        store.save_async(state(1.0), run="r", epoch=1)
        held.wait()
        skipped = store.save_async(state(2.0), run="r", parent="r@1")
        assert skipped.skipped
        assert store._pending.count == 1


def test_memory_of_copies_is_kept_for_the_next_and_let_go_at_the_end(tmp_path):
    held = set()
    with Store(tmp_path / "store", catalog="sqlite://") as store:
        for epoch in range(5):
            store.save_async(state(epoch), epoch=epoch).wait(PATIENCE_S)
            held.add(store._staging().held_bytes)
    assert len(held) == 1
    assert store._staging().held_bytes == 0


# ---------------------------------------------------------------- failures


def failing(store: Store) -> None:
    with Held(store, StorageError("the disk is gone")):
        pending = store.save_async(state(1.0), epoch=1)
    assert pending.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: store.save(state(2.0)),
        lambda store: store.save_async(state(2.0)),
        lambda store: store.save_package(torch.nn.Linear(2, 2), model_config={}),
        lambda store: store.wait(),
        lambda store: store.close(),
    ],
    ids=["save", "save_async", "save_package", "wait", "close"],
)
def test_a_failure_that_nobody_saw_is_raised_by_what_comes_next_and_only_once(tmp_path, verb):
    store = Store(tmp_path / "store", catalog="sqlite://", on_full="raise")
    opener = store._storage.open_writer
    failing(store)
    store._storage.open_writer = opener

    with pytest.raises(StorageError, match="the disk is gone") as caught:
        verb(store)
    assert "test_in_background.py" in caught.value.__notes__[0]
    store.save(state(2.0), epoch=2)
    store.close()
    assert [each.epoch for each in store.history()] == [2]


def test_leaving_the_block_raises_what_nobody_saw(tmp_path):
    store = Store(tmp_path / "store", catalog="sqlite://")
    failing(store)

    with pytest.raises(StorageError, match="the disk is gone"), store:
        pass


def test_an_error_of_the_block_is_not_hidden_but_has_the_failure_in_its_notes(tmp_path):
    store = Store(tmp_path / "store", catalog="sqlite://")
    failing(store)

    with pytest.raises(ZeroDivisionError) as caught, store:
        raise ZeroDivisionError

    assert "the disk is gone" in caught.value.__notes__[0]


def test_an_interrupt_while_an_error_waits_for_saves_lets_it_out_and_the_saves_go_on(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("ckptstore.saving.pending.WORD_S", 0.01)
    monkeypatch.setattr("ckptstore.saving.pending._say", interrupted)
    store = Store(tmp_path / "store", catalog="sqlite://")
    error = ValueError("of mine")
    with Held(store) as held:
        pending = store.save_async(state(1.0), epoch=1)
        held.wait()
        store.__exit__(ValueError, error, None)
        assert not pending.done()
        assert "go on" in error.__notes__[0]

    assert pending.result(PATIENCE_S).epoch == 1
    store.close()


def test_readers_do_not_raise_failures_of_saves(store):
    store.save(state(0.0), epoch=0)
    failing(store)

    assert store.latest().epoch == 0
    with pytest.raises(StorageError):
        store.wait()


# ---------------------------------------------------------------- readers


READERS = {
    "best": lambda store: store.best(metric="loss", mode="min"),
    "latest": lambda store: store.latest(),
    "get": lambda store: store.get("default@2"),
    "history": lambda store: store.history()[1],
    "runs": lambda store: store.runs(),
    "tags": lambda store: store.tags(),
    "tag_history": lambda store: store.tag_history(),
    "tag": lambda store: store.tag("default@2", "x"),
    "load": lambda store: store.load_latest(lambda: torch.nn.ParameterDict(state(0.0))),
    "collect": lambda store: store.collect(dry_run=True),
    "verify": lambda store: store.verify(),
    "reindex": lambda store: store.reindex(),
    "prune": lambda store: store.prune(Keep(last=1), run="default"),
    "copy_to": lambda store: store.copy_to("memory://copies-of-readers"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("whose", ["same", "other"])
def test_readers_wait_for_saves_of_any_store_of_that_place(tmp_path, name, whose):
    store = Store(tmp_path / "store", catalog="sqlite://")
    store.save(state(0.0), epoch=0, loss=1.0)
    reader = store if whose == "same" else Store(tmp_path / "store", catalog="sqlite://")
    over, outcome = threading.Event(), []

    def read() -> None:
        outcome.append(READERS[name](reader))
        over.set()

    with Held(store) as held:
        store.save_async(state(1.0), epoch=1, loss=0.5)
        held.wait()
        thread = threading.Thread(target=read)
        thread.start()
        assert not over.wait(0.05)
    assert over.wait(PATIENCE_S)
    thread.join()
    if name in {"best", "latest", "get", "history"}:
        assert outcome[0].epoch == 1
    reader.close()
    store.close()


def test_a_log_of_the_training_waits_for_nobody(store):
    run = store.run("r")
    run.save(state(0.0), epoch=0)
    with Held(store) as held:
        run.save_async(state(1.0), epoch=1)
        held.wait()
        run.log(epoch=1, loss=0.5)
        assert not held._free.is_set()


def test_what_is_restored_is_the_parent_of_what_is_saved_next_whatever_was_pending(store):
    net = torch.nn.Linear(3, 3)
    first = store.save(net, epoch=0, model_config={})
    held = Held(store)
    with torch.no_grad():
        net.weight.zero_()
    store.save_async(net, epoch=1, model_config={})
    held.wait()
    threading.Timer(0.05, held.let_go).start()

    first.restore(net)
    assert store.save(net, epoch=2, model_config={}).parent == first.ref


def test_a_keep_policy_and_two_stores_saving_at_once_do_not_wait_for_each_other(tmp_path):
    stores = [
        Store(tmp_path / "store", catalog="sqlite://", max_pending=4).run(
            name, keep=Keep(last=1), monitor="loss", mode="min"
        )
        for name in ("a", "b")
    ]
    for epoch in range(4):
        for run in stores:
            run.save_async(state(epoch), epoch=epoch, loss=-epoch)
    for run in stores:
        run.wait(PATIENCE_S)
        assert len([each for each in run.history() if each.retired is None]) == 1
        run._store.close()


# ---------------------------------------------------------------- forks, interrupts, travel


def test_a_forked_child_has_none_of_the_parents_saves(store):
    with Held(store) as held:
        pending = store.save_async(state(1.0), epoch=1)
        held.wait()
        child = os.fork()
        if not child:
            code = 1
            try:
                with pytest.raises(UsageError, match="parent"):
                    pending.result(1)
                code = 0 if store._pending.wait(1) and pending.wait(1) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pending.result(PATIENCE_S).epoch == 1


def test_an_interrupt_while_waiting_leaves_the_save_going_on(store, monkeypatch):
    with Held(store) as held:
        pending = store.save_async(state(1.0), epoch=1)
        held.wait()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Condition, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pending.result()
            with pytest.raises(KeyboardInterrupt):
                store.save_async(state(2.0), epoch=2)
            with pytest.raises(KeyboardInterrupt):
                store.latest()

    assert pending.result(PATIENCE_S).epoch == 1
    assert store.save_async(state(3.0), epoch=3).result(PATIENCE_S).version == 2


def interrupted(*_: object) -> bool:
    raise KeyboardInterrupt


def test_a_store_travels_with_what_it_may_have_in_flight(tmp_path):
    store = Store(tmp_path / "s", max_pending=2, when_busy="skip", staging_bytes=7)

    other = copy.copy(store)  # by what pickling uses, too

    assert (other._pending._max_pending, other._pending._skips) == (2, True)
    assert other._pending.staging_bytes == 7


# ---------------------------------------------------------------- what it cost


def test_what_a_save_cost_is_recorded_with_the_version(store):
    blocking = store.save(state(1.0), rng=False)
    pending = store.save_async(state(2.0), rng=False).result(PATIENCE_S)
    found = store.get(pending.ref)

    assert found.timings == pending.timings
    for timings in (blocking.timings, found.timings):
        assert timings.hashed_bytes == 4000
        assert timings.written_bytes >= 4000
        assert min(timings.blocked_s, timings.hashed_s, timings.written_s) > 0
    assert (blocking.timings.copied_bytes, blocking.timings.copied_s) == (0, 0)
    assert found.timings.copied_bytes >= 4000
    assert found.timings.copied_s > 0
    assert found.metadata["timings"]["hashed_bytes"] == 4000


def test_what_a_step_waited_for_held_the_training_up_too(tmp_path):
    training = Training()
    training.epoch()
    with Store(tmp_path / "store", catalog="sqlite://", max_pending=2) as store:
        with Held(store) as held:
            store.save_async(state(0.0))
            held.wait()  # so that the worker is busy, and the step copies what is left
            pending = store.save_async(**training.parts(), overlap=True)
            training.epoch()
            assert pending._copy is not None
            assert pending._copy.waited_s > 0
            pending._copy.waited_s += 1000.0
        assert pending.result(PATIENCE_S).timings.blocked_s > 1000


def test_what_is_not_written_again_is_not_counted_as_written(store):
    store.save(state(1.0), rng=False)
    again = store.save(state(1.0), rng=False)

    assert again.timings.written_bytes == 0
    assert again.timings.hashed_bytes == 4000


def test_nothing_is_warned_of_and_no_thread_is_left(tmp_path):
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Store(tmp_path / "store", catalog="sqlite://") as store:
            for epoch in range(3):
                store.save_async(state(epoch), epoch=epoch)
    worker = store._pending._worker
    assert worker is None
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
