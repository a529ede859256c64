"""A cache as users meet it: what it saves, and that nothing else changes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ckptstore import Cache, Store
from ckptstore.errors import ArgumentError, CacheWarning, IntegrityError

FORK = multiprocessing.get_context("fork")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def trained() -> tuple[Net, torch.optim.Optimizer]:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def opened(url: str, tmp_path: Path, **options) -> Store:
    catalog = f"sqlite:///{tmp_path / 'catalog.db'}"
    return Store(url, **{"catalog": catalog, "cache": tmp_path / "cache", **options})


def copies(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*-[0-9]*") if path.is_file())


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, others = one.state_dict(), other.state_dict()
    return list(mine) == list(others) and all(torch.equal(mine[key], others[key]) for key in mine)


def save(url: str, tmp_path: Path, **options) -> Net:
    model, optimizer = trained()
    with opened(url, tmp_path, cache=None) as store:
        store.save(model, optimizer, val_loss=0.5, **options)
    return model


@pytest.fixture
def saved(memory_url: str, tmp_path: Path) -> Net:
    return save(memory_url, tmp_path)


@pytest.fixture
def saved_to_s3(s3_url: str, tmp_path: Path) -> Net:
    return save(s3_url, tmp_path)


class Asked:
    """What an S3 server of ours was asked for, as its log has it."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log = log

    def clear(self) -> None:
        self._log.clear()

    def requests(self) -> list[tuple[str, str]]:
        """Method and key of each request."""
        lines = [record.getMessage() for record in self._log.records if record.name == "werkzeug"]
        found = [re.search(r"(GET|HEAD|PUT|POST|DELETE) (/\S+) HTTP", line) for line in lines]
        return [(match[1], match[2].partition("some/prefix/")[2]) for match in found if match]

    @property
    def keys(self) -> list[str]:
        return [key for _, key in self.requests()]

    @property
    def data(self) -> list[str]:
        return [key for key in self.keys if key.startswith(("packs", "files"))]


@pytest.fixture
def asked(caplog: pytest.LogCaptureFixture) -> Asked:
    caplog.set_level(logging.INFO, logger="werkzeug")
    return Asked(caplog)


def test_the_second_start_asks_for_journals_and_manifests_only(
    s3_url, tmp_path, saved_to_s3, asked
):
    with opened(s3_url, tmp_path) as store:
        assert same(store.load_best(Net, device="cpu"), saved_to_s3)
    first = asked.data
    assert first
    assert not [key for key in first if key.startswith("files")]
    asked.clear()

    with opened(s3_url, tmp_path) as store:
        assert same(store.load_best(Net, device="cpu"), saved_to_s3)

    assert asked.keys
    assert [key for key in asked.keys if not re.match(r"runs/|ckptstore\.json", key)] == []


@pytest.mark.usefixtures("saved")
def test_the_model_alone_is_copied_out_of_a_full_checkpoint(memory_url, tmp_path):
    with opened(memory_url, tmp_path) as store:
        checkpoint = store.best()
        checkpoint.load(Net, device="cpu")

    assert len(checkpoint.head.packs) > 1
    assert len(copies(tmp_path)) == 1
    sizes = {part.size_bytes for part in [checkpoint.head.packs[0]]}
    assert copies(tmp_path)[0].stat().st_size in sizes


def test_every_way_to_load_reads_copies(s3_url, tmp_path, asked):
    save(s3_url, tmp_path, program=torch.zeros(2, 4))
    sample = torch.randn(2, 4)
    ways = [
        lambda store: store.load_best(Net, device="cpu"),
        lambda store: store.load_best(Net, device="cpu", mmap=False),
        lambda store: store.resume(*trained()),
        lambda store: store.best().restore(Net()),
        lambda store: store.best().state("model"),
        lambda store: store.best().state("optimizer"),
        lambda store: store.best().tensors("model", verify=True)["layers.0.weight"].read(),
        lambda store: store.best().tensors("model")["layers.0.weight"][:3],
        lambda store: store.best().load_program(device="cpu")(sample),
    ]
    with opened(s3_url, tmp_path) as store:
        store.resume(*trained())
        expected = store.best().load_program(device="cpu")(sample)
    asked.clear()
    for way in ways:
        with opened(s3_url, tmp_path) as store:
            found = way(store)
        assert asked.data == [], way
    assert torch.equal(found, expected)


def test_weights_out_of_a_copy_are_mapped(memory_url, tmp_path, saved):
    with opened(memory_url, tmp_path) as store:
        model = store.load_best(Net, device="cpu")

    copy = copies(tmp_path)[0]
    mapped = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if copy.name in line
    ]
    assert mapped
    model.layers[0].weight.data.zero_()
    assert same(opened(memory_url, tmp_path).load_best(Net, device="cpu"), saved)


def test_a_slice_fetches_no_pack(memory_url, tmp_path, saved, monkeypatch):
    monkeypatch.setattr("ckptstore.loading.copies.WHOLE_BYTES", 0)
    monkeypatch.setattr("ckptstore.loading.copies.WORTHWHILE_SHARE", 2)  # the header is so much
    with opened(memory_url, tmp_path) as store:
        tensors = store.best().tensors("model")
        assert torch.equal(tensors["layers.0.weight"][:2], saved.layers[0].weight[:2])
        assert torch.equal(tensors["layers.2.bias"].read(), saved.layers[2].bias)
        assert copies(tmp_path) == []

        store.best().load(Net, device="cpu", only="layers.0.bias", strict=False, build="plain")
        assert copies(tmp_path) == []


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("damage", ["header", "tensor", "everything", "short", "empty", "long"])
def test_a_damaged_copy_is_fetched_again_without_a_word(memory_url, tmp_path, saved, damage, mmap):
    with opened(memory_url, tmp_path) as store:
        store.load_best(Net, device="cpu")
    (copy,) = copies(tmp_path)
    right = copy.read_bytes()
    copy.write_bytes(
        {
            "header": b"x" + right[1:],
            "tensor": right[:5000] + bytes([right[5000] ^ 1]) + right[5001:],
            "everything": bytes(len(right)),
            "short": right[:4000],
            "empty": b"",
            "long": right + b"x",
        }[damage]
    )

    for _ in range(2):
        with opened(memory_url, tmp_path) as store:
            assert same(store.load_best(Net, device="cpu", mmap=mmap), saved)

    assert copies(tmp_path)[0].read_bytes() == right


def test_every_byte_of_a_copy_may_be_wrong(memory_url, tmp_path, saved):
    with opened(memory_url, tmp_path) as store:
        best = store.best()
        best.load(Net, device="cpu")
        (copy,) = copies(tmp_path)
        right = copy.read_bytes()
        for place in range(0, len(right), 997):
            copy.write_bytes(right[:place] + bytes([right[place] ^ 0x80]) + right[place + 1 :])
            assert same(best.load(Net, device="cpu"), saved)


@pytest.mark.usefixtures("saved")
def test_resume_takes_no_older_version_for_a_damaged_copy(memory_url, tmp_path):
    with opened(memory_url, tmp_path) as store:
        model, optimizer = trained()
        store.resume(model, optimizer)
        with torch.no_grad():
            model.layers[0].weight.add_(1)
        store.save(model, optimizer, val_loss=0.4)
        store.resume(*trained())
        for copy in copies(tmp_path):
            copy.write_bytes(bytes(copy.stat().st_size))

        again, its_optimizer = trained()
        assert store.resume(again, its_optimizer).checkpoint.version == 2
        assert same(again, model)


def test_a_damaged_program_is_fetched_again(memory_url, tmp_path):
    save(memory_url, tmp_path, program=torch.zeros(2, 4))
    sample = torch.randn(2, 4)
    with opened(memory_url, tmp_path) as store:
        program = store.best().load_program(device="cpu")
        (copy,) = [path for path in copies(tmp_path) if path.suffix != ".safetensors"]
        for content in (bytes(copy.stat().st_size), b"x"):
            copy.write_bytes(content)
            again = store.best().load_program(device="cpu")
            assert torch.equal(again(sample), program(sample))


@pytest.mark.usefixtures("saved_to_s3")
def test_what_is_damaged_in_the_store_is_an_error_with_a_cache_too(s3_url, s3_client, tmp_path):
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    with opened(s3_url, tmp_path, cache=None) as store:
        pack = store.best().head.packs[0]
    key = f"{prefix}/packs/{pack.save_id.hex[-2:]}/{pack.save_id}-{pack.number}.safetensors"
    body = bytearray(s3_client.get_object(Bucket=bucket, Key=key)["Body"].read())
    body[-1] ^= 1
    s3_client.put_object(Bucket=bucket, Key=key, Body=bytes(body))

    for _ in range(2):
        with opened(s3_url, tmp_path) as store, pytest.raises(IntegrityError, match="is damaged"):
            store.load_best(Net, device="cpu")


def test_a_store_of_the_same_names_elsewhere_shares_nothing(memory_url, tmp_path):
    """What one copied, and changed, is not what the other gets."""
    model, optimizer = trained()
    with Store(memory_url, catalog="sqlite://", cache=tmp_path / "cache") as store:
        store.save(model, optimizer, val_loss=0.5)
        store.load_best(Net, device="cpu")
    other = memory_url + "-copy"
    with opened(memory_url, tmp_path, catalog="sqlite://") as store:
        store._storage._filesystem.copy(memory_url, other, recursive=True)
    for copy in copies(tmp_path):
        copy.write_bytes(bytes(copy.stat().st_size))

    with opened(other, tmp_path, catalog="sqlite://") as store:
        assert same(store.load_best(Net, device="cpu"), model)
    assert len(copies(tmp_path)) == 2


@pytest.mark.parametrize("why", ["a file", "others", "small", "full"])
def test_a_cache_that_cannot_be_used_is_one_warning(memory_url, tmp_path, saved, why, monkeypatch):
    cache: object = tmp_path / "cache"
    if why == "a file":
        cache.write_text("")
    elif why == "others":
        (cache / "copies-1").mkdir(parents=True)
        (cache / "copies-1").chmod(0o777)
    elif why == "small":
        cache = Cache(cache, max_bytes=1000)
    else:
        monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))

    def load_often() -> None:
        with opened(memory_url, tmp_path, cache=cache) as store:
            for _ in range(3):
                assert same(store.load_best(Net, device="cpu"), saved)

    with pytest.warns(CacheWarning) as told:
        load_often()

    assert len(told) == 1
    assert "without it" in str(told[0].message)
    assert told[0].filename == __file__


def test_a_store_with_a_cache_goes_to_workers(memory_url, tmp_path, saved):
    from multiprocessing.reduction import ForkingPickler

    cache = Cache(tmp_path / "cache", max_bytes=10**8)
    with opened(memory_url, tmp_path, cache=cache) as store:
        there = ForkingPickler.loads(ForkingPickler.dumps(store))

    assert there._read_through._copies.cache == cache
    assert same(there.load_best(Net, device="cpu"), saved)


@pytest.mark.usefixtures("saved_to_s3")
def test_saving_and_checking_ask_the_store_itself(s3_url, s3_client, tmp_path):
    """A copy is no proof that something is in the bucket."""
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    with opened(s3_url, tmp_path) as store:
        checkpoint = store.best()
        model, optimizer = trained()
        store.resume(model, optimizer)
        assert store.verify().ok
        for pack in checkpoint.head.packs:
            key = f"packs/{pack.save_id.hex[-2:]}/{pack.save_id}-{pack.number}.safetensors"
            s3_client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")

        assert not store.verify().ok
        assert store.save(model, optimizer, val_loss=0.3).new_bytes > checkpoint.new_bytes / 2


def test_a_store_on_this_machine_takes_no_cache(tmp_path):
    with pytest.raises(ArgumentError, match="leave cache= out"):
        Store(tmp_path / "store", cache=tmp_path / "cache")


@pytest.mark.parametrize("cache", [5, True, "s3://bucket/x"])
def test_what_is_no_cache_is_refused(memory_url, cache):
    with pytest.raises(ArgumentError, match="a cache is a folder"):
        Store(memory_url, cache=cache)


@pytest.mark.usefixtures("saved")
def test_opening_and_looking_up_make_no_folder(memory_url, tmp_path):
    with opened(memory_url, tmp_path) as store:
        store.best()
        store.history()

    assert not (tmp_path / "cache").exists()


def test_processes_that_start_at_once_fetch_a_pack_once(s3_url, tmp_path, saved_to_s3, asked):
    start = FORK.Barrier(3)
    answers = FORK.SimpleQueue()

    def serve() -> None:
        with Store(s3_url, catalog="sqlite://", cache=tmp_path / "cache") as store:
            best = store.best()
            start.wait()
            answers.put(same(best.load(Net, device="cpu"), saved_to_s3))

    asked.clear()
    processes = [FORK.Process(target=serve) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [answers.get() for _ in processes] == [True] * 3
    gets = [key for method, key in asked.requests() if method == "GET"]
    assert len([key for key in gets if key.startswith("packs/")]) == 1
