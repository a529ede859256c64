"""A bucket looked through and cleaned up under fault: storms, pages that fail, poor services."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from typing import Any

import pytest

from ckptstore.errors import StorageError
from ckptstore.storage import s3_tree
from ckptstore.storage.base import Leftover
from ckptstore.storage.opening import open_storage
from ckptstore.storage.s3 import S3Storage
from tests.storage.s3_faults import Requests, answer, timeout, unreachable

KEYS = [f"packs/{n % 3:02}/{n:02}" for n in range(12)]
FOREVER = 50


@pytest.fixture
def storage(s3_url: str) -> S3Storage:
    storage = open_storage(s3_url)
    assert isinstance(storage, S3Storage)
    return storage


@pytest.fixture
def requests(storage: S3Storage) -> Requests:
    return Requests(storage)


@pytest.fixture
def pages(monkeypatch) -> None:
    """Five objects a page."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")


@pytest.fixture
def filled(storage: S3Storage) -> S3Storage:
    for key in KEYS:
        storage.create(key, b"data")
    return storage


def keys_below(storage: S3Storage, folder: str = "") -> list[str]:
    return sorted(stored.key for stored in storage.walk(folder))


def answers(monkeypatch, method: str, *given: Any) -> list[dict[str, Any]]:
    """Have *method* answered by *given*, one after the other. Return what it was asked with."""
    asked: list[dict[str, Any]] = []
    waiting = list(given)
    real = Requests.__call__

    async def call(self, name, **arguments):
        if name != method or not waiting:
            return await real(self, name, **arguments)
        asked.append(arguments)
        now = waiting.pop(0)
        if isinstance(now, BaseException):
            raise now
        return now

    monkeypatch.setattr(Requests, "__call__", call)
    return asked


def upload(key: str, name: str = "id") -> dict[str, Any]:
    return {"Key": key, "UploadId": name, "Initiated": datetime(2026, 1, 2, tzinfo=UTC)}


# ---------------------------------------------------------------------------------- walking


@pytest.mark.usefixtures("pages")
def test_every_page_is_read_through_a_storm(filled, requests):
    requests.refuse("list_objects_v2", None, timeout(), None, answer(503, "SlowDown"))

    assert keys_below(filled) == sorted(KEYS)
    assert requests.made == ["list_objects_v2"] * 5


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("fault", [answer(403, "AccessDenied"), answer(503), timeout()])
@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_page_that_fails_for_good_fails_the_walk(filled, requests, fault, page):
    requests.refuse("list_objects_v2", *[None] * page, *[fault] * FOREVER)
    walk = filled.walk("packs")

    assert [next(walk).key for _ in range(5 * page)] == sorted(KEYS)[: 5 * page]
    with pytest.raises(StorageError, match=r"cannot list s3://.*/packs"):
        next(walk)


@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize(
    "second", [{"IsTruncated": True}, {"IsTruncated": True, "NextContinuationToken": "here"}]
)
def test_a_walk_cut_short_raises(storage, monkeypatch, second):
    first = {"IsTruncated": True, "NextContinuationToken": "here"}
    answers(monkeypatch, "list_objects_v2", first, second)

    with pytest.raises(StorageError, match="cut short"):
        list(storage.walk(""))


def test_other_stores_and_markers_of_folders_are_not_in_a_walk(filled, s3_client, s3_url):
    bucket = s3_url.split("/")[2]
    for name in ("some/prefix/packs/", "some/prefix/", "some/prefix-2/packs/00/1", "packs/00/1"):
        s3_client.put_object(Bucket=bucket, Key=name, Body=b"")

    assert keys_below(filled) == sorted(KEYS)


def test_a_store_that_fills_its_bucket_is_walked_and_cleaned(s3_url):
    storage = open_storage("/".join(s3_url.split("/")[:3]))
    storage.create("packs/00/1", b"")
    assert [stored.key for stored in storage.walk("")] == ["packs/00/1"]
    assert [stored.key for stored in storage.walk("packs")] == ["packs/00/1"]

    assert storage.delete(["packs/00/1"]) == {}

    assert list(storage.walk("")) == []


# ---------------------------------------------------------------------------------- leftovers


def test_unfinished_uploads_are_leftovers_until_they_are_cleared(
    storage, requests, s3_client, s3_url
):
    bucket = s3_url.split("/")[2]
    for name in ("some/prefix/packs/00/x", "some/prefix/packs/01/y", "some/prefix-2/packs/00/z"):
        s3_client.create_multipart_upload(Bucket=bucket, Key=name)

    found = list(storage.leftovers())

    assert sorted(leftover.key for leftover in found) == ["packs/00/x", "packs/01/y"]
    assert all(each.upload and each.written_at.tzinfo is UTC for each in found)
    requests.refuse("abort_multipart_upload", answer(503), timeout())
    for leftover in found:
        storage.clear(leftover)
    assert list(storage.leftovers()) == []
    left = s3_client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [each["Key"] for each in left] == ["some/prefix-2/packs/00/z"]


def test_an_upload_that_is_gone_is_cleared(storage, requests):
    requests.refuse("abort_multipart_upload", answer(404, "NoSuchUpload"))

    storage.clear(Leftover("packs/00/x", "id", None, None))


def test_an_upload_that_cannot_be_aborted_says_so(storage, requests):
    requests.refuse("abort_multipart_upload", answer(403, "AccessDenied"))

    with pytest.raises(StorageError, match=r"packs/00/x: access denied.*AbortMultipartUpload"):
        storage.clear(Leftover("packs/00/x", "id", None, None))


@pytest.mark.usefixtures("requests")
def test_every_page_of_uploads_is_read(storage, monkeypatch):
    first, second = upload("some/prefix/a", "1"), upload("some/prefix/a", "2")
    asked = answers(
        monkeypatch,
        "list_multipart_uploads",
        {
            "Uploads": [first],
            "IsTruncated": True,
            "NextKeyMarker": "some/prefix/a",
            "NextUploadIdMarker": "1",
        },
        answer(503),
        {"Uploads": [second], "IsTruncated": False},
    )

    found = list(storage.leftovers())

    assert [(each.key, each.upload) for each in found] == [("a", "1"), ("a", "2")]
    assert found[0].written_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert asked[0]["Prefix"] == "some/prefix/"
    assert "KeyMarker" not in asked[0]
    assert (asked[2]["KeyMarker"], asked[2]["UploadIdMarker"]) == ("some/prefix/a", "1")


@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize("second", [{}, {"NextKeyMarker": "a"}, {"NextUploadIdMarker": "2"}])
def test_a_listing_of_uploads_cut_short_raises(storage, monkeypatch, second):
    first = {"IsTruncated": True, "NextKeyMarker": "a"}
    answers(monkeypatch, "list_multipart_uploads", first, {"IsTruncated": True, **second})

    with pytest.raises(StorageError, match="cut short"):
        list(storage.leftovers())


@pytest.mark.parametrize("fault", [answer(403, "AccessDenied"), answer(503), timeout()])
def test_a_listing_of_uploads_that_fails_raises(storage, requests, fault):
    requests.refuse("list_multipart_uploads", *[fault] * FOREVER)

    with pytest.raises(StorageError, match="cannot list the unfinished uploads of"):
        list(storage.leftovers())


@pytest.mark.parametrize(
    "fault", [answer(501, "NotImplemented"), answer(405, "MethodNotAllowed"), answer(405)]
)
def test_a_service_without_that_listing_has_no_leftovers_to_be_found(storage, requests, fault):
    requests.refuse("list_multipart_uploads", fault)

    assert list(storage.leftovers()) == []


@pytest.mark.usefixtures("requests")
def test_a_service_that_had_that_listing_a_page_ago_has_it(storage, monkeypatch):
    first = {"IsTruncated": True, "NextKeyMarker": "a"}
    answers(monkeypatch, "list_multipart_uploads", first, answer(501, "NotImplemented"))

    with pytest.raises(StorageError):
        list(storage.leftovers())


@pytest.mark.usefixtures("requests")
def test_what_a_service_lists_of_other_stores_is_not_ours(storage, monkeypatch):
    names = ("some/prefix/packs/00/1", "some/prefix-2/packs/00/1", "packs/00/1")
    objects = {"Contents": [{"Key": name, "Size": 1} for name in names]}
    answers(monkeypatch, "list_objects_v2", objects)
    answers(monkeypatch, "list_multipart_uploads", {"Uploads": [upload(name) for name in names]})

    assert keys_below(storage) == ["packs/00/1"]
    assert [leftover.key for leftover in storage.leftovers()] == ["packs/00/1"]


# ---------------------------------------------------------------------------------- deleting


def test_objects_are_deleted_in_batches(filled, requests, monkeypatch):
    monkeypatch.setattr(s3_tree, "BATCH", 5)

    assert filled.delete(KEYS) == {}

    assert requests.made == ["delete_objects"] * 3
    assert keys_below(filled) == []


def test_a_batch_has_no_more_keys_than_s3_takes():
    assert s3_tree.BATCH == 1000


@pytest.mark.parametrize("fault", [answer(503, "SlowDown"), timeout(), unreachable()])
def test_deleting_survives_a_storm(filled, requests, fault):
    requests.refuse("delete_objects", *[fault] * 3)

    assert filled.delete(KEYS) == {}
    assert keys_below(filled) == []


def test_deleting_again_after_a_lost_reply_is_a_success(filled, requests):
    requests.lose("delete_objects", timeout())

    assert filled.delete(KEYS) == {}
    assert keys_below(filled) == []


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (answer(503), errno.EIO),
        (answer(403, "AccessDenied"), errno.EACCES),
        (answer(400, "ExpiredToken"), errno.EACCES),
        (unreachable(), errno.ECONNREFUSED),
    ],
)
def test_a_request_that_fails_for_good_is_reported_for_its_keys_and_those_after(
    filled, requests, monkeypatch, fault, number
):
    monkeypatch.setattr(s3_tree, "BATCH", 5)
    requests.refuse("delete_objects", None, *[fault] * FOREVER)

    failed = filled.delete(KEYS)

    assert list(failed) == KEYS[5:]
    assert {error.errno for error in failed.values()} == {number}
    assert keys_below(filled) == sorted(KEYS[5:])
    requests.refuse("delete_objects")
    assert filled.delete(KEYS) == {}


@pytest.mark.usefixtures("requests")
def test_what_one_object_denies_is_reported_by_its_key(filled, monkeypatch):
    denied = {"Key": f"some/prefix/{KEYS[3]}", "Code": "AccessDenied", "Message": "locked"}
    missing = {"Key": f"some/prefix/{KEYS[4]}", "Code": "NoSuchKey", "Message": ""}
    asked = answers(monkeypatch, "delete_objects", {"Errors": [denied, missing]})

    failed = filled.delete(KEYS)

    assert list(failed) == [KEYS[3]]
    assert failed[KEYS[3]].errno == errno.EACCES
    assert f"cannot delete {filled.url}/{KEYS[3]}: " in str(failed[KEYS[3]])
    assert "s3:DeleteObject" in str(failed[KEYS[3]])
    assert len(asked) == 1
    assert asked[0]["Delete"]["Quiet"]


@pytest.mark.usefixtures("requests")
def test_what_may_pass_is_tried_again_for_those_objects_alone(filled, monkeypatch):
    slow = {"Key": f"some/prefix/{KEYS[3]}", "Code": "SlowDown", "Message": ""}
    denied = {"Key": f"some/prefix/{KEYS[4]}", "Code": "AccessDenied", "Message": ""}
    asked = answers(monkeypatch, "delete_objects", {"Errors": [slow, denied]}, {"Errors": [slow]})

    failed = filled.delete(KEYS)

    assert list(failed) == [KEYS[4]]
    assert asked[1]["Delete"]["Objects"] == [{"Key": f"some/prefix/{KEYS[3]}"}]
    assert KEYS[3] not in keys_below(filled)


@pytest.mark.usefixtures("requests")
def test_an_object_that_never_passes_is_reported(filled, monkeypatch):
    slow = {"Key": f"some/prefix/{KEYS[3]}", "Code": "InternalError", "Message": "oh"}
    asked = answers(monkeypatch, "delete_objects", *[{"Errors": [slow]}] * FOREVER)

    failed = filled.delete(KEYS)

    assert list(failed) == [KEYS[3]]
    assert len(asked) == 5


@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize("key", [{}, {"Key": "of/another/store"}])
def test_an_error_without_one_of_our_keys_is_reported_for_all(filled, monkeypatch, key):
    answers(monkeypatch, "delete_objects", {"Errors": [{"Code": "AccessDenied", **key}]})

    assert sorted(filled.delete(KEYS)) == sorted(KEYS)


@pytest.mark.parametrize(
    "fault",
    [
        answer(501, "NotImplemented"),
        answer(405, "MethodNotAllowed"),
        answer(400, "MissingContentMD5"),
        answer(400, "InvalidRequest", "Missing required header: Content-MD5"),
    ],
)
def test_a_service_that_takes_no_batches_is_asked_for_one_at_a_time(filled, requests, fault):
    requests.refuse("delete_objects", fault)
    requests.refuse("delete_object", answer(503), None, answer(404, "NoSuchKey"), timeout())

    assert filled.delete(KEYS) == {}
    assert filled.delete(KEYS[:1]) == {}

    assert requests.made.count("delete_objects") == 1
    assert set(keys_below(filled)) <= set(KEYS)
    assert len(keys_below(filled)) <= 1  # the one said to be missing


def test_one_at_a_time_what_is_denied_is_reported_by_its_key(filled, requests):
    requests.refuse("delete_objects", answer(501, "NotImplemented"))
    requests.refuse("delete_object", None, answer(403, "AccessDenied"))

    failed = filled.delete(KEYS)

    assert len(failed) == 1
    assert keys_below(filled) == list(failed)


def test_one_at_a_time_a_storage_that_is_down_is_not_asked_for_each(filled, requests, monkeypatch):
    monkeypatch.setattr(s3_tree, "BATCH", 2)
    requests.refuse("delete_objects", answer(501, "NotImplemented"))
    requests.refuse("delete_object", *[unreachable()] * 1000)

    failed = filled.delete(KEYS)

    assert sorted(failed) == sorted(KEYS)
    assert requests.made.count("delete_object") <= 10


def test_batches_carry_the_checksum_that_s3_asks_for(filled):
    sent = []
    filled._filesystem.connect()
    events = filled._filesystem.s3.meta.events
    events.register("before-send.s3.DeleteObjects", lambda request, **_: sent.append(request))

    filled.delete(KEYS)

    (request,) = sent
    assert {"x-amz-checksum-crc32", "Content-MD5"} & set(request.headers)
