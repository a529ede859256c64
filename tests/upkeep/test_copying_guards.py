"""What nobody notices in a copy until it is too late: each of its guards alone keeps it out."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import IntegrityError, LateCommitError
from ckptstore.format.digest import digest
from ckptstore.format.layout import file_key
from ckptstore.format.manifest import Pack, Parent
from ckptstore.format.pack import Slot
from ckptstore.saving.basis import Basis, Place
from ckptstore.saving.moment import Moment
from ckptstore.saving.reuse import Known
from ckptstore.saving.run_writer import RunWriter
from ckptstore.upkeep import retelling, transfer
from ckptstore.upkeep.carrying import Stretch, Want, look_up
from ckptstore.upkeep.retelling import KINDS
from tests.loading import forging
from tests.upkeep.copies import filled, state

WEEK_S = 7 * 24 * 3600.0


@pytest.fixture
def here(tmp_path):
    return filled(tmp_path / "here", versions=2)


@pytest.fixture
def there(tmp_path):
    return Store(tmp_path / "there")


def is_empty(store):
    """Say whether a store has no version, and nothing of one that failed."""
    return not list(store._storage.walk("runs")) and not list(store._storage.leftovers())


def test_a_file_that_is_not_what_was_saved_is_not_copied(here, there):
    save, data = UUID(int=77), b"an export" * 1000
    path = Path(here.url) / file_key(save, 3)
    path.parent.mkdir(parents=True)
    path.write_bytes(data[:-1] + b"?")

    def name(head, _):
        head["files"] = [
            {"save": str(save), "number": 3, "size_bytes": len(data), "blake3": digest(data)}
        ]

    forging.forge(here.url, "digits", name)
    fresh = Store(here.url, catalog="sqlite://")

    with pytest.raises(IntegrityError, match=r"a file: .* does not hold the bytes that were saved"):
        fresh.copy_to(there, ref="digits@1")

    assert is_empty(there)
    assert list(there._storage.walk("files")) == []


def test_no_bytes_have_the_digest_of_some(here, there):
    # A tensor without elements has nothing to read, and so nothing that would show the lie.
    def lie(_, parts):
        chunks = [chunk for each in parts["extra"]["tensors"] for chunk in each["chunks"]]
        for chunk in chunks:
            if not chunk["length"]:
                chunk["blake3"] = digest(b"something")

    here.save(extra=state(1), run="empty", rng=False)
    forging.forge(here.url, "empty", lie)

    with pytest.raises(IntegrityError, match="has another digest"):
        Store(here.url, catalog="sqlite://").copy_to(there, run="empty")

    assert is_empty(there)


def test_what_is_retired_while_others_are_copied_is_left(here, there, monkeypatch):
    for number in (4, 5):
        here.save(extra=state(number), run="digits", rng=False)
    original = transfer.carry

    def carry(opened, *args, **options):
        if opened.head.version == 1:
            Store(here.url, catalog="sqlite://").prune(Keep(last=1), run="digits")
        return original(opened, *args, **options)

    monkeypatch.setattr(transfer, "carry", carry)

    copied = here.copy_to(there, ref=["digits@1", "digits@4", "digits@5"])

    assert copied.copied == [("digits@1", "digits@1"), ("digits@5", "digits@2")]
    assert copied.retired == ("digits@4",)


def test_a_copy_is_as_old_as_its_look_at_what_it_shares_with(here, there, monkeypatch):
    here.copy_to(there, ref="digits@1")
    original, now = RunWriter.bases, Moment.now()
    long_ago = Moment(now.wall_s - WEEK_S, now.monotonic_s - WEEK_S)

    def bases(self, *asked, **how):
        return [(basis, long_ago) for basis, _ in original(self, *asked, **how)]

    monkeypatch.setattr(RunWriter, "bases", bases)

    with pytest.raises(LateCommitError, match="no version of run 'digits' was committed"):
        here.copy_to(there, ref="digits@2")

    assert [each.version for each in there.history()] == [1]


def test_a_copy_is_as_old_as_its_first_byte(here, there, monkeypatch):
    original, passed = transfer.carry, [0.0]

    def now(cls):
        return cls(time.time() + passed[0], time.monotonic() + passed[0])

    def carry(*args, **options):
        carried = original(*args, **options)
        passed[0] += WEEK_S
        return carried

    monkeypatch.setattr(Moment, "now", classmethod(now))
    monkeypatch.setattr(transfer, "carry", carry)

    with pytest.raises(LateCommitError, match="no version of run 'digits' was committed"):
        here.copy_to(there, ref="digits@1")


def test_what_has_one_digest_and_another_length_is_not_shared():
    # A forged manifest could say so of bytes that nobody reads again.
    pack = Pack(UUID(int=1), 0, 2**20, 4096, "0" * 64)
    slot = Slot("w", "uint8", (8,), 1, 8)
    want = Want(Stretch(0, 4096, 8, "1" * 64), pack, "model", "w", slot, Known(8, "1" * 64))
    wrong = Basis(Parent("r", 1, UUID(int=2)), {"1" * 64: Place(pack, 4096, 5)})

    look_up([want], [wrong])

    assert want.known.places == []


def test_a_parent_that_was_replaced_is_not_who_has_its_number_now(here, there):
    here.save({"w": torch.ones(3)}, run="fork", parent="digits@1", rng=False)
    forging.forge(here.url, "fork", lambda head, _: head["parent"].update(save=str(UUID(int=9))))

    Store(here.url, catalog="sqlite://").copy_to(there)

    assert there.get("fork@1").parent is None


def test_a_parent_in_another_run_keeps_its_place_where_it_was_copied_to(here, there):
    here.save({"w": torch.ones(3)}, run="fork", parent="digits@1", rng=False)
    here.copy_to(there)

    there.prune(Keep(last=1), run="digits")

    assert there.get("digits@1").retired is None


def test_what_another_copy_tells_meanwhile_is_not_told_twice(here, there, monkeypatch):
    here.get("digits@1").log(test=0.5)
    original, told = retelling._last_words, []

    def last_words(entries):
        if not told:
            told.append(True)
            Store(here.url, catalog="sqlite://").copy_to(Store(there.url, catalog="sqlite://"))
        return original(entries)

    monkeypatch.setattr(retelling, "_last_words", last_words)

    here.copy_to(there)

    there._catalog.sync("digits")
    assert told
    writers = [entry.writer for _, entry in there._catalog.journal("digits", KINDS)]
    assert len(writers) == len(set(writers)) == len(here._catalog.journal("digits", KINDS))
