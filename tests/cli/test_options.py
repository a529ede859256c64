from __future__ import annotations

import json

import fsspec
import pytest
import torch

from ckptstore import Store
from ckptstore.cli.options import parse_options
from ckptstore.errors import ArgumentError
from ckptstore.format.journal import RetireEntry
from ckptstore.format.layout import version_key
from ckptstore.storage.exclusive import CREATORS


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("anon=true", True),
        ("port=9000", 9000),
        ("endpoint_url=http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ('secret="123"', "123"),
        ('client_kwargs={"region_name": "eu"}', {"region_name": "eu"}),
        ("key=a=b", "a=b"),
        ("key=", ""),
        ("key=NaN", "NaN"),
        ("key={broken", "{broken"),
        pytest.param("key=" + "[" * 100_000, "[" * 100_000, id="deep"),
    ],
)
def test_value_is_json_where_it_is_json(written, meant):
    key = written.partition("=")[0]
    assert parse_options([written]) == {key: meant}


@pytest.mark.parametrize("written", ["hunter2", "=hunter2", "hunter 2=x"])
def test_what_is_no_pair_is_refused_and_not_repeated(written):
    with pytest.raises(ArgumentError, match="takes KEY=VALUE") as caught:
        parse_options([written])
    assert "hunter" not in str(caught.value)


def test_option_given_twice_is_refused_and_not_repeated():
    with pytest.raises(ArgumentError, match="--option secret=… is given twice") as caught:
        parse_options(["secret=hunter2", "secret=hunter3"])
    assert "hunter" not in str(caught.value)


def test_options_reach_the_storage_and_are_not_repeated(typed, storage_options):
    """The bucket is not there; that the server says so shows that the options led to it."""
    given = [
        f"--option={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in storage_options.items()
    ]
    done = typed("history", "s3://no-such-bucket/store", *given, "--catalog", "sqlite://")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no bucket 'no-such-bucket'" in done.stderr
    for secret in (storage_options["key"], storage_options["secret"]):
        assert secret not in done.stderr


def test_catalog_is_where_it_was_asked_for(typed, place, tmp_path):
    done = typed("runs", place, "--catalog", f"sqlite:///{tmp_path}/mine.sqlite3")
    assert done.exit_code == 0
    assert (tmp_path / "mine.sqlite3").stat().st_size


# ------------------------------------------------------------ storage that keeps no writers apart


@pytest.fixture
def untrusted(memory_url, tmp_path, monkeypatch):
    """A store where nothing is known that keeps two writers apart; and its catalog."""
    monkeypatch.delitem(CREATORS, "memory")
    catalog = f"sqlite:///{tmp_path}/catalog.sqlite3"
    with Store(memory_url, catalog=catalog, single_writer=True) as store:
        for number in range(3):
            store.save(extra=[number], model={"w": torch.ones(number + 1)}, run="digits", rng=False)
        store.tag("digits@2", "old")
        store._writer("digits").append(
            lambda _facts, now, writer: RetireEntry({1: "old"}, now, writer)
        )
    return memory_url, "--catalog", catalog


@pytest.mark.parametrize(
    "words",
    [
        "tag STORE digits@3 new",
        "untag STORE old",
        "log STORE digits@3 acc=1",
        "note STORE digits@3 good",
        "prune STORE digits --last 1",
        "undelete STORE digits@1",
        "collect STORE",
    ],
)
def test_commands_that_write_take_the_promise_that_nobody_else_does(typed, untrusted, words):
    store, *options = untrusted
    command = [store if word == "STORE" else word for word in words.split()]

    refused = typed(*command, *options)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--single-writer" in refused.stderr
    assert "single_writer" not in refused.stderr
    done = typed(*command, *options, "--single-writer")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_repair_takes_it_too(typed, untrusted):
    store, *options = untrusted
    memory = fsspec.filesystem("memory")
    manifest = f"{store.removeprefix('memory://')}/{version_key('digits', 2)}"
    memory.pipe_file(manifest, b"{}")

    refused = typed("verify", store, "--repair", *options)

    assert "could not be repaired" in refused.stdout
    assert "--single-writer" in refused.stdout
    done = typed("verify", store, "--repair", "--single-writer", *options)
    assert "could not be repaired" not in done.stdout
    assert "repaired: retired" in done.stdout
