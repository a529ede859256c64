from __future__ import annotations

import importlib
import inspect

import pytest

from ckptstore.cli.words import typed as in_words

REGION = """storage_options={'client_kwargs': {'region_name': 'eu-west-1'}}"""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("say mode='min' or mode='max'", "say --mode 'min' or --mode 'max'"),
        ("metric='acc' is not the monitor", "--metric 'acc' is not the monitor"),
        ("say metric= and mode=", "say --metric and --mode"),
        ("catalog= takes the URL", "--catalog takes the URL"),
        ("name another place with catalog=", "name another place with --catalog"),
        ("name one, as run=… or in a ref", "name one, as RUN or in a ref"),
        ("as in keep=Keep(last=3, best=2), or", "as in --last 3 --best 2, or"),
        (
            "with the run, as in store.run('a', keep=Keep(last=3, best=2))",
            "with the run, where it is trained",
        ),
        (f"e.g. {REGION}", """e.g. --option client_kwargs='{"region_name": "eu-west-1"}'"""),
        (
            "or pass storage_options={'key': …, 'secret': …}",
            "or pass --option key=… --option secret=…",
        ),
        ("open it with Store(…, single_writer=True)", "open it with --single-writer"),
        ("store with single_writer=True, or", "store with --single-writer, or"),
        ("call store.verify(repair=True): once", "call ckptstore verify --repair: once"),
        ("let verify(repair=True) do it", "let ckptstore verify --repair do it"),
        ("call store.reindex()", "call ckptstore reindex"),
        ("collect() removes it", "ckptstore collect removes it"),
        ("store.undelete('a@7') brings", "ckptstore undelete STORE 'a@7' brings"),
        ("a new store with copy_to to go on", "a new store with ckptstore copy to go on"),
        ("no run 'mode=1'; runs: 'sweep/metric='", "no run 'mode=1'; runs: 'sweep/metric='"),
    ],
)
def test_arguments_are_options(message, shown):
    assert in_words(message) == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["best", "STORE", "sweep/*", "--metric", "loss"], "say --mode 'min' or --mode 'max'"),
        (["best", "STORE", "sweep/*", "--metric", "loss"], "--metric 'loss' is not"),
        (["best", "STORE"], "name one, as RUN or in a ref such as"),
        (["history", "STORE", "--catalog", "nonsense"], "--catalog takes the URL"),
    ],
)
def test_errors_speak_the_command_line(typed, place, words, said):
    done = typed(*(place if word == "STORE" else word for word in words))
    assert done.exit_code
    assert said in " ".join(done.stderr.split())
    assert "=…" not in done.stderr


@pytest.mark.parametrize("place_of_words", ["s3_errors", "opening"])
def test_examples_of_the_storages_are_known(place_of_words):
    source = inspect.getsource(importlib.import_module(f"ckptstore.storage.{place_of_words}"))
    examples = [line for line in source.splitlines() if "storage_options={" in line]
    assert examples
    for line in examples:
        assert "storage_options" not in in_words(line)
