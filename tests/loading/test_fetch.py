"""Tensors out of packs: only those asked for, aligned where mapped, and nobody else's memory."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest
import torch

from ckptstore import Store
from ckptstore.errors import IntegrityError, StorageError
from ckptstore.format.digest import digest
from ckptstore.loading import fetch as fetch_module
from ckptstore.loading.fetch import Work, begin, fetch
from ckptstore.loading.load import load_state
from ckptstore.manifest import open_manifest
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import forge, head_of, packs_of
from tests.loading.storages import Watched, failing
from tests.loading.trainings import frozen

STATE = {
    "big": torch.arange(4096, dtype=torch.float32),
    "bf16": torch.arange(64).to(torch.bfloat16),
    "odd": torch.arange(7, dtype=torch.int64),
    "flag": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.empty(0, 3),
    "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "turned": torch.randn(3, 4, 5).permute(2, 0, 1),
    "half": torch.randn(16, 2).half(),
    "complex": torch.randn(8, dtype=torch.complex64),
    "int8": torch.arange(100, dtype=torch.int8),
}


@pytest.fixture
def folder(tmp_path):
    Store(tmp_path / "store").save(STATE, run="digits")
    return tmp_path / "store"


def loaded(storage, part="model", **options):
    return load_state(open_manifest(storage, "digits", 1), part, **options)


def memories(state):
    return {name: tensor.untyped_storage().data_ptr() for name, tensor in state.items()}


@pytest.mark.parametrize("map_files", [True, False])
def test_every_bit_comes_back(folder, map_files):
    state = loaded(LocalStorage(folder), map_files=map_files)

    assert frozen(state) == frozen(STATE)
    assert {name: tensor.stride() for name, tensor in state.items()} == {
        name: tensor.stride() for name, tensor in STATE.items()
    }


def test_mapped_tensors_lie_at_addresses_kernels_like(folder):
    storage = Watched(LocalStorage(folder))
    state = loaded(storage, map_files=True)

    assert storage.mapped == [
        f"packs/{path.parent.name}/{path.name}" for path in packs_of(folder, "digits")[:1]
    ]
    assert {name: tensor.data_ptr() % 64 for name, tensor in state.items() if tensor.numel()} == {
        name: 0 for name, tensor in state.items() if tensor.numel()
    }


def test_large_aligned_tensors_are_mapped_and_not_read(folder):
    storage = Watched(LocalStorage(folder))
    loaded(storage, map_files=True)

    (pack,) = packs_of(folder, "digits")[:1]
    read = storage.bytes_read[f"packs/{pack.parent.name}/{pack.name}"]
    assert read < head_of(folder, "digits").packs[0].header_bytes + STATE["big"].nbytes


def test_without_mapping_nothing_is_mapped(folder):
    storage = Watched(LocalStorage(folder))
    loaded(storage, map_files=False)

    assert storage.mapped == []


@pytest.mark.parametrize("map_files", [True, False])
def test_tensors_that_are_not_tied_share_no_memory(tmp_path, map_files):
    same = torch.ones(64)
    Store(tmp_path / "store").save({"a": same, "b": same.clone(), "c": same + 1}, run="digits")
    # Equal bytes may be stored once: a manifest may name one stretch for two tensors.
    forge(
        tmp_path / "store",
        "digits",
        lambda _, parts: parts["model"]["tensors"][1].update(
            chunks=parts["model"]["tensors"][0]["chunks"]
        ),
    )
    state = loaded(LocalStorage(tmp_path / "store"), map_files=map_files)

    assert len(set(memories(state).values())) == 3
    state["a"].zero_()
    assert torch.equal(state["b"], same)


def test_writing_to_a_mapped_tensor_does_not_change_the_file(folder):
    before = [path.read_bytes() for path in packs_of(folder, "digits")]
    state = loaded(LocalStorage(folder), map_files=True)
    state["big"].fill_(7)

    assert [path.read_bytes() for path in packs_of(folder, "digits")] == before
    assert frozen(loaded(LocalStorage(folder), map_files=True)) == frozen(STATE)


def test_a_mapped_tensor_outlives_its_file(folder):
    state = loaded(LocalStorage(folder), map_files=True)
    for path in packs_of(folder, "digits"):
        path.unlink()

    assert torch.equal(state["big"], STATE["big"])


def test_a_storage_that_maps_nothing_is_read(folder):
    storage = Watched(LocalStorage(folder), maps=False)

    assert frozen(loaded(storage, map_files=True)) == frozen(STATE)


def test_only_the_part_asked_for_is_read(tmp_path):
    model = {"w": torch.randn(1000)}
    Store(tmp_path / "store").save(model, run="digits", extra={"buffer": torch.randn(10_000_000)})
    storage = Watched(LocalStorage(tmp_path / "store"))
    loaded(storage)

    head = head_of(tmp_path / "store", "digits")
    allowed = head.packs[0].size_bytes + 64 * 1024  # its pack, and the manifest's start
    assert sum(storage.bytes_read.values()) <= allowed
    assert len([key for key in storage.bytes_read if key.startswith("packs/")]) == 1


def test_only_the_tensors_asked_for_are_read(folder):
    storage = Watched(LocalStorage(folder))
    opened = open_manifest(storage, "digits", 1)
    part = opened.part("model")
    tensors = fetch(storage, opened.head, "model", part, [2], map_files=False)

    assert list(tensors) == [2]
    (pack,) = packs_of(folder, "digits")[:1]
    read = storage.bytes_read[f"packs/{pack.parent.name}/{pack.name}"]
    assert read == opened.head.packs[0].header_bytes + STATE["odd"].nbytes


@pytest.fixture
def requests(monkeypatch):
    """The lengths of what was read, but for headers."""
    lengths = []
    read_into = LocalStorage.read_into

    def counted(self, key, start, out):
        if start:
            lengths.append(out.nbytes)
        read_into(self, key, start, out)

    monkeypatch.setattr(LocalStorage, "read_into", counted)
    return lengths


def test_small_neighbours_are_read_in_one_request(tmp_path, requests):
    Store(tmp_path / "store").save({str(i): torch.randn(3) for i in range(200)}, run="digits")
    loaded(LocalStorage(tmp_path / "store"))

    assert requests == [200 * 12]


def test_a_block_is_never_larger_than_the_limit(tmp_path, requests, monkeypatch):
    monkeypatch.setattr(fetch_module, "BLOCK_BYTES", 100)
    state = {str(i): torch.randn(3) for i in range(20)}
    state["large"] = torch.randn(50)  # has a request of its own
    Store(tmp_path / "store").save(state, run="digits")

    assert frozen(loaded(LocalStorage(tmp_path / "store"))) == frozen(state)
    assert sorted(requests) == [48, 96, 96, 200]


def test_what_lies_far_apart_is_read_apart(tmp_path, requests, monkeypatch):
    monkeypatch.setattr(fetch_module, "GAP_BYTES", 100)
    state = {"a": torch.randn(4), "b": torch.randn(40), "c": torch.randn(4), "d": torch.randn(20)}
    Store(tmp_path / "store").save(state, run="digits")
    storage = LocalStorage(tmp_path / "store")
    opened = open_manifest(storage, "digits", 1)
    fetch(storage, opened.head, "model", opened.part("model"), [0, 2], map_files=False)

    assert requests == [16, 16]


def test_the_first_failure_is_raised_and_stops_the_rest(folder):
    storage = Watched(LocalStorage(folder), failing("read_into", "packs/"))

    with pytest.raises(StorageError, match="no connection"):
        loaded(storage)


def test_a_pack_that_goes_while_it_is_mapped_is_an_integrity_error(folder):
    storage = Watched(
        LocalStorage(folder),
        lambda method, key: FileNotFoundError(key) if method == "map" else None,
    )

    with pytest.raises(IntegrityError, match="gone"):
        loaded(storage, map_files=True)


def test_a_default_device_does_not_matter(folder):
    with torch.device("meta"):
        state = loaded(LocalStorage(folder))

    assert frozen(state) == frozen(STATE)


# ------------------------------------------------------------ several chunks


def cut(tensor, boxes, folder):
    """Return a tensor's chunks in a pack of their own, last box first, as JSON for its line."""
    head = head_of(folder, "digits")
    pack = packs_of(folder, "digits")[0]
    data = bytearray(pack.read_bytes())
    chunks = []
    for offsets, shape in boxes:
        box = tuple(slice(at, at + size) for at, size in zip(offsets, shape, strict=True))
        rows = tensor[box].contiguous()
        raw = rows.reshape(-1).view(torch.uint8).numpy().tobytes()
        chunks.insert(
            0,
            {
                "pack": 0,
                "start": len(data),
                "length": len(raw),
                "offsets": list(offsets),
                "shape": list(shape),
                "blake3": digest(raw),
            },
        )
        data += raw + b"gap"
    pack.write_bytes(data)
    assert len(head.packs) >= 1
    return chunks, len(data)


@pytest.mark.parametrize("map_files", [True, False])
@pytest.mark.parametrize(
    ("tensor", "boxes"),
    [
        (torch.randn(10, 3), [((0, 0), (4, 3)), ((4, 0), (6, 3))]),
        (
            torch.arange(24).reshape(4, 6).to(torch.bfloat16),
            [((0, 0), (2, 4)), ((0, 4), (2, 2)), ((2, 0), (2, 6))],
        ),
        (torch.arange(9.0), [((0,), (1,)), ((1,), (7,)), ((8,), (1,))]),
        (torch.arange(9.0), [((0,), (9,)), ((9,), (0,))]),
        (torch.randn(0, 3), []),
    ],
    ids=["rows", "boxes", "vector", "an empty one", "none"],
)
def test_a_tensor_of_several_chunks_comes_back_whole(tmp_path, tensor, boxes, map_files):
    folder = tmp_path / "store"
    Store(folder).save({"w": torch.zeros_like(tensor), "other": torch.ones(3)}, run="digits")
    chunks, size = cut(tensor, boxes, folder)

    def change(head, parts):
        head["packs"][0]["size_bytes"] = size
        parts["model"]["tensors"][0]["chunks"] = chunks

    forge(folder, "digits", change)

    assert frozen(loaded(LocalStorage(folder), map_files=map_files)["w"]) == frozen(tensor)


def test_a_channels_last_tensor_of_several_chunks_comes_back_channels_last(tmp_path):
    folder = tmp_path / "store"
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    Store(folder).save({"w": torch.zeros_like(tensor)}, run="digits")
    chunks, size = cut(tensor, [((0, 0, 0, 0), (1, 3, 4, 5)), ((1, 0, 0, 0), (1, 3, 4, 5))], folder)

    def change(head, parts):
        head["packs"][0]["size_bytes"] = size
        parts["model"]["tensors"][0]["chunks"] = chunks

    forge(folder, "digits", change)
    found = loaded(LocalStorage(folder))["w"]

    assert torch.equal(found, tensor)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_damaged_chunk_names_its_tensor(tmp_path):
    folder = tmp_path / "store"
    Store(folder).save({"w": torch.zeros(4)}, run="digits")
    chunks, size = cut(torch.arange(4.0), [((0,), (2,)), ((2,), (2,))], folder)
    chunks[1]["blake3"] = hashlib.sha256(b"").hexdigest()

    def change(head, parts):
        head["packs"][0]["size_bytes"] = size
        parts["model"]["tensors"][0]["chunks"] = chunks

    forge(folder, "digits", change)

    with pytest.raises(IntegrityError, match="'model/w'"):
        loaded(LocalStorage(folder))


# ------------------------------------------------------------ arrays and devices


def test_arrays_come_back_in_their_own_memory(tmp_path):
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    extra = {"a": np.arange(5), "b": fortran, "c": np.empty((0, 2)), "t": torch.ones(2)}
    checkpoint = Store(tmp_path / "store").save({"w": torch.ones(1)}, run="digits", extra=extra)

    found = checkpoint.extra
    assert frozen(found) == frozen(extra)
    assert found["b"].flags.f_contiguous
    found["a"][0] = 100
    assert frozen(checkpoint.extra) == frozen(extra)


def test_on_another_device_tensors_move_and_arrays_stay(tmp_path, monkeypatch):
    # meta stands in for a device that this machine may lack.
    extra = {"a": np.arange(5), "t": torch.ones(2, requires_grad=True)}
    checkpoint = Store(tmp_path / "store").save({"w": torch.ones(1)}, run="digits", extra=extra)
    monkeypatch.setattr("ckptstore.loading.load.resolve", torch.device)

    found = checkpoint.state("extra", device="meta")
    assert found["t"].device.type == "meta"
    assert found["t"].requires_grad
    assert frozen(found["a"]) == frozen(extra["a"])


# ------------------------------------------------------------ work in threads


def test_what_is_begun_is_checked_when_that_is_waited_for(folder):
    (pack,) = packs_of(folder, "digits")[:1]
    data = bytearray(pack.read_bytes())
    data[head_of(folder, "digits").packs[0].header_bytes] ^= 1  # of the tensor that comes first
    pack.write_bytes(data)
    storage = LocalStorage(folder)
    opened = open_manifest(storage, "digits", 1)
    fetched = begin(storage, opened.head, "model", opened.part("model"), range(11), map_files=True)

    for _ in range(2):  # and not only the first time
        with pytest.raises(IntegrityError, match="is damaged"):
            fetched.check()


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_work_is_done_with_every_item_and_leaves_no_thread(at_once):
    done, before = [], threading.active_count()
    Work(done.append, range(100), at_once).finish()

    assert sorted(done) == list(range(100))
    assert threading.active_count() == before


def test_the_first_failure_is_raised_once_the_others_have_stopped():
    begun, go_on, done = threading.Barrier(2), threading.Event(), []

    def do(item):
        if item < 2:
            begun.wait()
            if item == 0:
                go_on.wait()
            go_on.set()
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match="0"):
        Work(do, range(100), 2).finish()
    assert done == []


def test_an_interrupt_goes_before_a_failure_and_stops_the_work():
    begun, done = threading.Barrier(2), []

    def do(item):
        if item < 2:
            begun.wait()
            raise ValueError if item == 0 else KeyboardInterrupt
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        Work(do, range(100), 2).finish()
    assert done == []


def test_work_that_is_given_up_is_not_gone_on_with():
    begun, stopped, done = threading.Event(), threading.Event(), []

    def do(item):
        begun.set()
        stopped.wait()
        done.append(item)

    work = Work(do, range(100), 2)
    begun.wait()
    threading.Timer(0, lambda: (setattr(work, "_stopped", True), stopped.set())).start()
    work.stop()

    assert len(done) == 1


@pytest.mark.parametrize(
    ("length", "total", "threads"), [(100, 100, 8), (50, 100, 4), (1, 100, 1), (0, 0, 1)]
)
def test_a_tensor_gets_the_threads_that_are_its_share(length, total, threads):
    assert fetch_module._share(length, total, 8) == threads
