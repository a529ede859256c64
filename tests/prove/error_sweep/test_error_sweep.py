"""Any call to the system or request to S3 fails: success or a typed error, and nothing is left."""

from __future__ import annotations

import os

import pytest

from ckptstore.errors import StorageError
from ckptstore.storage import durable, local_writer
from tests.faults import store_on
from tests.prove.error_sweep import local, remote
from tests.prove.error_sweep.bucket import Bucket, storage_in
from tests.prove.error_sweep.faults import FAULTS
from tests.prove.error_sweep.local import Place
from tests.prove.error_sweep.remote import REMOTE_FAULTS, RemotePlace, look
from tests.prove.error_sweep.verbs import VERBS, fill
from tests.prove.states import opened, quietly

EACH = dict.fromkeys([False, True])
NAMED = {verb.name: verb for verb in VERBS}
FAULT = {fault.name: fault for fault in FAULTS}
REMOTE = {fault.name: fault for fault in REMOTE_FAULTS}
# Each verb meets every third or fourth fault, at one of its calls; the long form takes them all.
LOCAL_SHARE, REMOTE_SHARE = 3, 4


def chosen(faults, verb, share):
    """Yield some faults, others for the next verb, and how far into the verb each happens."""
    row = VERBS.index(verb)
    for column, fault in enumerate(faults):
        if (row + column) % share == 0:
            yield fault, (row * 7 + column * 3) * 0.618034 % 1


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def bucket():
    return RemotePlace()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_call_to_the_system_that_fails_costs_nothing(place, verb):
    for fault, spot in chosen(FAULTS, verb, LOCAL_SHARE):
        without = place.calls(verb, fault)
        if without.count:
            at = 1 + int(spot * without.count)
            local.case(place, verb, fault, at, always=at % 2 == 0, without=without)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_request_that_fails_costs_nothing(bucket, verb):
    for fault, spot in chosen(REMOTE_FAULTS, verb, REMOTE_SHARE):
        without = bucket.calls(verb, fault)
        if without.count:
            at = 1 + int(spot * without.count)
            remote.case(bucket, verb, fault, at, always=at % 2 == 0, without=without)


# ------------------------------------------------------------ the proof itself


def test_the_proof_notices_a_file_that_stays_open(place, monkeypatch):
    left = []

    def leave(writer):
        left.append(writer)

    monkeypatch.setattr(local_writer.LocalWriter, "_give_up", leave)

    with pytest.raises(AssertionError, match=r"left open|half written"):
        list(local.sweep(place, NAMED["save"], FAULT["ENOSPC"], always=False))

    for writer in left:  # the next test looks for what is open too
        os.close(writer._fd)


def test_the_proof_notices_a_failed_fsync_that_nobody_hears_of(place, monkeypatch):
    monkeypatch.setattr(durable, "durability_error", KeyError)

    with pytest.raises(AssertionError, match="raised KeyError"):
        list(local.sweep(place, NAMED["save"], FAULT["EIO"], always=False))


def test_the_proof_notices_an_upload_that_is_not_aborted(bucket, monkeypatch):
    monkeypatch.setattr("ckptstore.storage.s3_upload.S3Writer._give_up", lambda *_: None)

    with pytest.raises(AssertionError, match="uploads are left"):
        list(remote.sweep(bucket, NAMED["first save"], REMOTE["403"], always=False))


def test_the_bucket_in_memory_answers_as_a_server_does(s3_url):
    """The same verbs on both leave the same objects, their own ids apart."""
    ours = Bucket()
    with quietly(), store_on(storage_in(ours)) as store:
        fill(store)
        held = look(store)
        mine = [(each.ref, each.size_bytes) for each in store.history()]
    with quietly(), opened(s3_url) as store:
        fill(store)
        assert look(store) == held
        assert [(each.ref, each.size_bytes) for each in store.history()] == mine


def test_a_late_landing_is_whole_and_is_never_in_anothers_way(bucket):
    """The PUT of the manifest gets no answer, is given up, and lands when nobody waits for it."""
    verb, fault = NAMED["save"], REMOTE["lands late"]
    ends = [end for _, end in remote.sweep(bucket, verb, fault, always=True)]

    assert any(end.visible for end in ends), "no case let a version land late"
    assert {end.error for end in ends} <= {"success", StorageError.__name__, "OutcomeUnknownError"}
