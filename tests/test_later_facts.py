"""Tags through the store: set, moved, taken away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    IntegrityError,
    InvalidNameError,
    RetiredError,
    VersionNotFoundError,
)
from ckptstore.format.journal import RetireEntry
from ckptstore.saving.journaling import author


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", run="digits") as opened:
        for epoch in (1, 2):
            opened.save({"w": torch.full((2,), float(epoch))}, epoch=epoch)
        yield opened


def test_a_tag_is_set_moved_and_taken_away(store):
    store.tag("digits@1", "prod")
    assert store.get("digits@prod").epoch == 1

    store.tag(store.get("digits@2"), "prod")
    assert store.get("digits@prod").epoch == 2

    store.untag("prod")
    with pytest.raises(VersionNotFoundError):
        store.get("digits@prod")


def test_a_name_that_is_none_is_refused(store):
    with pytest.raises(InvalidNameError):
        store.tag("digits@1", "best")


def retire(store, version, reason="not kept"):
    def decide(_facts, time, writer):
        return RetireEntry({version: reason}, time, writer)

    store._writer("digits").append(decide)


def test_metrics_that_came_later_are_known_to_every_process(store):
    evaluator = Store(store.url)

    logged = evaluator.get("digits@1").log(test_acc=0.5)
    evaluator.log("digits@2", {"test_acc": 0.25})

    assert logged.metrics == {"test_acc": 0.5}
    assert store.best(metric="test_acc", mode="max") == logged
    assert store.get(2).metrics == {"test_acc": 0.25}
    assert store.run("digits").get(2).metadata["metrics"] == {"test_acc": 0.25}


def test_what_is_known_already_is_not_written_again(store):
    store.log(1, acc=1)
    store.log(1, acc=1)
    assert len(store._storage.list_folder("runs/digits/_journal").files) == 1

    assert repr(store.log(1, acc=1.0).metrics["acc"]) == "1.0"


def test_epochs_without_weights_stand_beside_the_history(store):
    run = store.run("digits")
    run.log(epoch=3, train_loss=0.5)
    run.log({"epoch": 9}, step=7)

    first, second = run.history().logged
    assert (first.run, first.epoch, first.step, first.metrics) == (
        "digits", 3, None, {"train_loss": 0.5},
    )  # fmt: skip
    assert (second.epoch, second.step, second.metrics) == (None, 7, {"epoch": 9})
    with pytest.raises(ArgumentError, match="epoch= or step="):
        run.log(train_loss=1)


def test_a_note_is_kept_replaced_and_taken_away(store):
    assert store.note("digits@1", "good").note == "good"
    store.run("digits").note(1, "better")
    assert store.get(1).note == "better"
    assert store.note(store.get(1), None).note is None


@pytest.mark.parametrize("text", [7, "\ud800", "a\0b"])
def test_a_note_that_can_not_be_kept_is_refused(store, text):
    with pytest.raises(ArgumentError, match="note"):
        store.note(1, text)


def test_tags_are_listed_with_their_history(store):
    store.tag(1, "prod")
    store.tag(2, "prod")
    store.tag(1, "old")

    assert store.tags() == {"old": "digits@1", "prod": "digits@2"}
    moves = store.tag_history("prod")
    assert [(move.previous, move.version) for move in moves] == [(None, 1), (1, 2)]
    assert store.run("digits").tag_history() == store.tag_history()
    assert moves[0].by == author()


def test_a_retired_version_has_its_row_and_takes_no_tag_and_no_load(store):
    entry = store.get(1)
    retire(store, 1)

    found = store.history()[0]
    assert found.retired.reason == "not kept"
    assert found.metadata["retired"]["reason"] == "not kept"
    assert "retired (UTC)" in repr(store.history())
    for use in (
        lambda: store.tag(1, "prod"),
        lambda: store.get(1).state("model"),
        lambda: store.get(1).restore(torch.nn.Linear(1, 1)),
    ):
        with pytest.raises(RetiredError, match=r"digits@1 was retired on .*: not kept; .*undelete"):
            use()
    assert entry.state("model")["w"].tolist() == [1, 1]  # its data are there still


def test_a_load_whose_data_went_says_that_the_version_was_retired_meanwhile(store):
    entry = store.get(1)
    retire(store, 1)
    for pack in Path(store.url).glob("packs/*/*"):
        pack.unlink()

    with pytest.raises(RetiredError, match="not kept"):
        entry.state("model")
    with pytest.raises(IntegrityError, match="digits@2"):
        store.get(2).state("model")
    with pytest.raises(VersionNotFoundError, match="no checkpoint but digits@2, known to be dam"):
        store.latest()
