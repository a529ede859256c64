"""Multipart uploads under fault: none is ever left behind unsaid."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptstore.errors import StorageError
from ckptstore.storage import s3_upload
from ckptstore.storage.opening import open_storage
from ckptstore.storage.s3 import S3Storage
from tests.storage.s3_faults import Requests, answer, timeout

KEY = "packs/ab/x-0.safetensors"
PART = 5 * 2**20


@pytest.fixture
def storage(s3_url: str) -> S3Storage:
    storage = open_storage(s3_url)
    assert isinstance(storage, S3Storage)
    storage.part_bytes = PART
    return storage


@pytest.fixture
def requests(storage: S3Storage) -> Requests:
    return Requests(storage)


@pytest.fixture
def left(s3_client, s3_url):
    """Say what is in the bucket: names of objects, and of unfinished uploads."""
    bucket = s3_url.split("/")[2]

    def look() -> tuple[list[str], list[str]]:
        objects = s3_client.list_objects_v2(Bucket=bucket).get("Contents", [])
        uploads = s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [each["Key"] for each in objects], [each["Key"] for each in uploads]

    return look


def write(storage: S3Storage, parts: int, *, then: BaseException | None = None) -> None:
    with storage.open_writer(KEY) as writer:
        for number in range(parts):
            writer.write(memoryview(bytes([number]) * PART))
        if then is not None:
            raise then


def whole(parts: int) -> bytes:
    return b"".join(bytes([number]) * PART for number in range(parts))


def test_parts_arrive_in_order_through_a_storm(storage, requests, left):
    requests.refuse("create_multipart_upload", answer(503, "SlowDown"))
    requests.refuse("upload_part", timeout(), None, answer(500, "InternalError"), None, timeout())
    requests.refuse("complete_multipart_upload", answer(503))

    write(storage, 9)

    assert storage.read(KEY) == whole(9)
    assert left()[1] == []


def test_a_small_object_is_one_request(storage, requests):
    with storage.open_writer(KEY) as writer:
        writer.write(memoryview(b"small"))

    assert requests.made == ["put_object"]


@pytest.mark.parametrize("reason", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_upload_given_up_midway_is_aborted(storage, requests, left, reason):
    with pytest.raises(type(reason)):
        write(storage, 4, then=reason)

    assert "abort_multipart_upload" in requests.made
    assert left() == ([], [])


@pytest.mark.parametrize("fault", [answer(403, "ExpiredToken"), timeout()])
def test_a_part_that_fails_for_good_fails_the_write_and_aborts_the_upload(
    storage, requests, left, fault
):
    requests.refuse("upload_part", None, None, *[fault] * 50)

    with pytest.raises(StorageError, match="cannot write"):
        write(storage, 30)

    assert requests.made.count("upload_part") < 30 + 5 * s3_upload.PARTS_IN_FLIGHT
    assert left() == ([], [])


def test_a_completion_that_fails_for_good_aborts_the_upload(storage, requests, left):
    requests.refuse("complete_multipart_upload", answer(403, "AccessDenied"))

    with pytest.raises(StorageError):
        write(storage, 2)

    assert left() == ([], [])


def test_a_completion_whose_reply_was_lost_is_a_success(storage, requests, left):
    requests.lose("complete_multipart_upload", timeout())
    requests.refuse("complete_multipart_upload", None, answer(404, "NoSuchUpload"))

    write(storage, 2)

    assert storage.read(KEY) == whole(2)
    assert left()[1] == []


def test_an_upload_that_vanished_is_no_success(storage, requests):
    requests.refuse("complete_multipart_upload", answer(404, "NoSuchUpload"))

    with pytest.raises(StorageError, match="NoSuchUpload"):
        write(storage, 2)


def test_an_upload_whose_beginning_got_no_answer_is_found_and_aborted(storage, requests, left):
    requests.lose("create_multipart_upload", *[timeout()] * 50)

    with pytest.raises(StorageError):
        write(storage, 2)

    assert requests.made.count("create_multipart_upload") == 5
    assert left() == ([], [])


def test_a_second_upload_begun_after_a_lost_reply_is_not_left(storage, requests, left):
    requests.lose("create_multipart_upload", timeout())

    write(storage, 2)

    assert storage.read(KEY) == whole(2)
    assert left()[1] == []


@pytest.mark.parametrize(
    ("failure", "why"),
    [(answer(403, "AccessDenied"), "AccessDenied"), (MemoryError(), "not enough memory")],
)
def test_an_abort_that_fails_is_said_in_the_error(storage, requests, s3_url, failure, why):
    requests.refuse("abort_multipart_upload", failure)

    with pytest.raises(RuntimeError) as caught:
        write(storage, 2, then=RuntimeError("stop"))

    (note,) = caught.value.__notes__
    assert f"multipart upload of {s3_url}/{KEY} could not be aborted" in note
    assert why in note


def test_an_abort_is_tried_again(storage, requests, left):
    requests.refuse("abort_multipart_upload", answer(503), timeout())

    with pytest.raises(RuntimeError):
        write(storage, 2, then=RuntimeError("stop"))

    assert left() == ([], [])


def test_too_many_parts_are_refused(storage, monkeypatch, left):
    monkeypatch.setattr(s3_upload, "MOST_PARTS", 2)

    with pytest.raises(StorageError, match="more than 2 parts"):
        write(storage, 3)

    assert left() == ([], [])


def test_a_bounded_number_of_parts_is_in_memory(storage, monkeypatch):
    running, most = 0, 0

    async def slow(method, **_arguments):
        nonlocal running, most
        if method == "upload_part":
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1
        return {"UploadId": "1", "ETag": "1", "Uploads": []}

    monkeypatch.setattr(storage.client, "request", slow)
    piece = memoryview(bytes(PART))
    tracemalloc.start()
    try:
        with storage.open_writer(KEY) as writer:
            for _ in range(40):
                writer.write(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most == s3_upload.PARTS_IN_FLIGHT
    assert peak < (s3_upload.PARTS_IN_FLIGHT + 2) * PART * 1.15


def test_two_uploads_at_once_take_no_more_than_256_mib(s3_url, monkeypatch):
    storage = open_storage(s3_url)
    running, most, full = 0, 0, asyncio.Event()

    async def slow(method, **_arguments):
        nonlocal running, most
        if method == "upload_part":
            running += 1
            most = max(most, running)
            if running == s3_upload.PARTS_IN_FLIGHT:
                full.set()
            await full.wait()
            running -= 1
        return {"UploadId": "1", "ETag": "1", "Uploads": []}

    monkeypatch.setattr(storage.client, "request", slow)
    piece = memoryview(bytes(32 * 2**20))

    def upload(number: int) -> None:
        with storage.open_writer(f"packs/ab/x-{number}.safetensors") as writer:
            for _ in range(12):
                writer.write(piece)

    tracemalloc.start()
    try:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(upload, range(2)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most == s3_upload.PARTS_IN_FLIGHT
    assert peak < 256 * 2**20 + 2**20


def test_parts_that_failed_leave_their_turns_to_others(storage, requests):
    requests.refuse("upload_part", *[answer(403, "AccessDenied")] * 100)
    for _ in range(3):
        with pytest.raises(StorageError, match="access denied"):
            write(storage, 8)

    requests.refuse("upload_part")
    write(storage, 2 * s3_upload.PARTS_IN_FLIGHT)
    assert storage.size_bytes(KEY) == 2 * s3_upload.PARTS_IN_FLIGHT * PART


def test_an_interrupt_while_waiting_for_parts_stops_and_aborts_them(
    storage, requests, left, monkeypatch
):
    waiting, begun = threading.Event(), 0

    async def never(method, **arguments):
        nonlocal begun
        if method == "upload_part":
            begun += 1
            if begun == s3_upload.PARTS_IN_FLIGHT:
                waiting.set()
            await asyncio.Event().wait()
        return await requests(method, **arguments)

    monkeypatch.setattr(storage.client, "request", never)

    def interrupt() -> None:
        waiting.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        write(storage, 20)

    thread.join()
    assert left() == ([], [])
    monkeypatch.setattr(storage.client, "request", requests)
    write(storage, 2)  # nobody's turn was kept
    assert storage.read(KEY) == whole(2)
