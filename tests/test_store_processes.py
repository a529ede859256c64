"""One store object in several threads, in forked children and in workers of a DataLoader."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ckptstore import Store
from tests.loading.trainings import Net, Training, frozen, same

THREADS = 4


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for loss in (0.5, 0.1, 0.3):
        Training().save(store, val_loss=loss)
    return store


def in_a_fork(work):
    """Run *work* in a forked child and return what it printed: ``fine``, or its traceback."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads; so do users
        child = os.fork()
    if child == 0:
        said = "fine"
        try:
            work()
        except BaseException:  # noqa: BLE001 - shown by the parent
            said = traceback.format_exc()
        os.write(write, said.encode()[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def reads(store):
    assert store.best().version == 2
    assert len(store.history()) >= 3
    assert store.load_best(Net, device="cpu") is not None
    assert store.get("@1").state("model") is not None


def test_a_forked_child_reads_and_saves(store):
    reads(store)

    def work():
        torch.set_num_threads(1)  # threads of the pool are not there after a fork
        reads(store)
        store.save({"w": torch.ones(3)}, rng=False)

    assert in_a_fork(work) == "fine"
    assert store.save({"w": torch.ones(3)}, rng=False).version == 5
    assert [each.version for each in store.history()] == [1, 2, 3, 4, 5]


def test_a_fork_in_the_middle_of_a_threads_work_does_not_hang(store):
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            store.best()
            store.save({"w": torch.ones(3)}, rng=False)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(3):

            def work():
                torch.set_num_threads(1)
                assert store.get("@2").version == 2
                store.save({"w": torch.ones(3)}, rng=False)

            assert in_a_fork(work) == "fine"
    finally:
        stop.set()
        thread.join()

    versions = [each.version for each in store.history()]
    assert versions == list(range(1, len(versions) + 1))


class Weights(torch.utils.data.Dataset):
    """Reads versions' weights where it is asked for: in the worker."""

    def __init__(self, store):
        self.store = store
        self.entry = store.get("@1")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        entry = self.entry if index == 0 else self.store.get(f"@{index % 3 + 1}")
        state = entry.state("model")
        return state["first.weight"].sum(), os.getpid()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_read(store, method):
    expected = [float(store.get(f"@{i % 3 + 1}").state("model")["first.weight"].sum())
                for i in range(4)]  # fmt: skip
    context = multiprocessing.get_context(method)
    loader = torch.utils.data.DataLoader(
        Weights(store), num_workers=1, batch_size=None, multiprocessing_context=context
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = list(loader)

    assert [float(value) for value, _ in found] == expected
    assert os.getpid() not in {int(pid) for _, pid in found}


def test_threads_save_distinct_versions_and_lose_none(store):
    def work(number):
        return [
            store.save({"w": torch.full((3,), number)}, val_loss=1.0, rng=False).version
            for _ in range(5)
        ]

    with ThreadPoolExecutor(THREADS) as pool:
        versions = sorted(number for made in pool.map(work, range(THREADS)) for number in made)

    assert versions == list(range(4, 4 + 5 * THREADS))
    assert [each.version for each in store.history()] == list(range(1, 4 + 5 * THREADS))


def test_threads_into_runs_of_their_own(store):
    def work(number):
        run = store.run(f"sweep/{number}")
        for _ in range(3):
            run.save({"w": torch.ones(2)}, val_loss=float(number), rng=False)
        return [each.version for each in run.history()]

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [[1, 2, 3]] * THREADS
    assert store.best(run="sweep/*").ref == "sweep/0@1"


def test_threads_read_side_by_side(store):
    expected = [frozen(store.get(version).state("model")) for version in (1, 2, 3)]

    def work(number):
        model = store.load(Net, number % 3 + 1, device="cpu", mmap=bool(number % 2))
        assert same(model, store.load(Net, number % 3 + 1, device="cpu"))
        return frozen(store.get(number % 3 + 1).state("model")) == expected[number % 3]

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(12)))


def test_a_store_made_in_one_thread_is_closed_in_another(store):
    threading.Thread(target=store.close).start()
    reads(store)
