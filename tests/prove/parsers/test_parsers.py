"""Whatever a manifest, journal entry or pack says: a typed error or a value, in bounded memory."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError
from ckptstore.format import fields
from ckptstore.format.journal import encode_entry
from ckptstore.format.pack import Slot, plan
from tests.prove.parsers import memory
from tests.prove.parsers.hostile import (
    ENTRIES,
    READERS,
    hostile_entries,
    hostile_manifests,
    read_entry,
    read_manifest,
    refused,
    sealed,
)
from tests.prove.parsers.packs import check, is_refused, slots

slow = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@slow
@given(hostile_manifests())
def test_a_manifest_whose_digests_hold_is_read_or_refused(data):
    event("refused" if refused(read_manifest, data) else "read")


@slow
@given(hostile_entries())
def test_a_journal_entry_whose_digest_holds_is_read_or_refused(data):
    for name in ("journal", "store"):
        event(f"{name}: " + ("refused" if refused(READERS[name], data) else "read"))


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_every_reader(data):
    for name, reader in READERS.items():
        refused(reader, data)
        if name != "manifest":
            with pytest.raises(IntegrityError):
                reader(data)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_what_is_changed_here_was_valid_before(entry):
    value = json.loads(encode_entry(entry))
    del value["blake3"]

    assert not refused(read_entry, sealed(json.dumps(value)))


# ------------------------------------------------------------ memory


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What is imported and compiled once is nobody's input."""
    for _, data in memory.manifests():
        refused(read_manifest, data)


def test_a_manifest_takes_memory_by_its_own_size():
    for name, data in memory.manifests():
        used = memory.peak(read_manifest, data)
        assert used <= memory.allowed(data), f"{name}: {used} bytes for {len(data)}"


def test_a_journal_entry_takes_memory_by_its_own_size():
    for place, (name, data) in enumerate(memory.sealed_objects()):
        if place % 11 == 0:
            for reader in (READERS["journal"], READERS["store"]):
                used = memory.peak(reader, data)
                assert used <= memory.allowed(data), f"{name}: {used} bytes for {len(data)}"


# ------------------------------------------------------------ packs


@settings(max_examples=200, deadline=None, database=None)
@given(slots())
def test_safetensors_reads_a_pack_as_it_was_written(made):
    check(made)


def test_a_tensor_called_like_the_headers_own_field_is_no_pack():
    """So no part may hold one: `plan` is not told, as state is refused before it gets there."""
    slot = Slot("__metadata__", "uint8", (4,), 1, 4)

    assert is_refused(plan([slot]).header + bytes(4))


# ------------------------------------------------------------ the proof itself


def test_the_proof_notices_a_check_that_is_left_out(monkeypatch):
    monkeypatch.setattr(fields, "TIME", re.compile(r".*"))
    value = json.loads(encode_entry(ENTRIES[0])) | {"time": "9999-99-99T99:99:99Z\0"}
    del value["blake3"]
    monkeypatch.setattr(fields.Fields, "bad", lambda *_: KeyError("no typed error"))

    with pytest.raises(KeyError, match="no typed error"):
        refused(read_entry, sealed(json.dumps(value)))


def test_the_proof_notices_memory_that_is_asked_for_by_a_number():
    small = b'{"length":67108864}'

    assert memory.peak(lambda _: bytearray(64 * 2**20), small) > memory.allowed(small)
