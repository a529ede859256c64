"""S3 under fault: conflicts, storms, lost replies, clones that lack something, wrong addresses."""

from __future__ import annotations

import asyncio
import errno
import logging
import multiprocessing
import threading
import traceback
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from ckptstore.errors import ArgumentError, NotExclusiveError, StorageError
from ckptstore.loading import fetch
from ckptstore.storage import s3
from ckptstore.storage.base import Listing
from ckptstore.storage.opening import open_storage
from ckptstore.storage.s3 import S3Storage
from ckptstore.storage.s3_errors import code_of
from tests.storage.s3_faults import Requests, answer, taken, timeout, unreachable

KEY = "runs/digits/_versions/00000001.jsonl"
FOREVER = 50


@pytest.fixture
def storage(s3_url: str) -> S3Storage:
    storage = open_storage(s3_url)
    assert isinstance(storage, S3Storage)
    return storage


@pytest.fixture
def requests(storage: S3Storage) -> Requests:
    return Requests(storage)


# ---------------------------------------------------------------------------------- creating


@pytest.mark.parametrize("named", [True, False])
def test_a_412_means_that_it_is_there_with_or_without_a_condition(storage, requests, named):
    requests.refuse("put_object", taken(named=named))

    with pytest.raises(FileExistsError):
        storage.create(KEY, b"x")
    assert requests.made == ["put_object"]


@pytest.mark.parametrize(
    "fault",
    [
        answer(409, "ConditionalRequestConflict"),
        answer(503, "SlowDown"),
        answer(503),
        answer(500, "InternalError"),
        answer(429),
        answer(400, "RequestTimeout"),
        timeout(),
        unreachable(),
        ConnectionResetError("reset by peer"),
    ],
    ids=code_of,
)
def test_what_passes_is_tried_again(storage, requests, fault):
    requests.refuse("put_object", fault, fault)

    storage.create(KEY, b"x")

    assert requests.made == ["put_object"] * 3
    assert storage.read(KEY) == b"x"


@pytest.mark.parametrize(
    "fault", [answer(409, "ConditionalRequestConflict"), answer(503), timeout()]
)
def test_a_storm_ends_in_a_named_error_and_leaves_nothing(storage, requests, s3_url, fault):
    requests.refuse("put_object", *[fault] * FOREVER)

    with pytest.raises(StorageError, match="cannot create") as caught:
        storage.create(KEY, b"x")

    assert requests.made == ["put_object"] * 5
    assert f"{s3_url}/{KEY}" in str(caught.value)
    assert storage.list_folder("") == Listing((), ())


def test_what_will_not_pass_is_not_tried_again(storage, requests):
    requests.refuse("put_object", answer(403, "AccessDenied"))

    with pytest.raises(StorageError, match="access denied") as caught:
        storage.create(KEY, b"x")
    assert caught.value.errno == errno.EACCES
    assert requests.made == ["put_object"]


def test_an_object_found_after_a_lost_reply_may_be_ours_and_the_error_says_so(storage, requests):
    requests.lose("put_object", timeout())

    with pytest.raises(StorageError, match="read it to see whose it is") as caught:
        storage.create(KEY, b"x")

    assert not isinstance(caught.value, FileExistsError)
    assert storage.read(KEY) == b"x"


def test_an_object_found_after_a_conflict_is_anothers(storage, requests):
    requests.refuse("put_object", answer(409, "ConditionalRequestConflict"), taken())

    with pytest.raises(FileExistsError):
        storage.create(KEY, b"x")


def test_an_object_found_after_an_attempt_that_was_never_sent_is_anothers(storage, requests):
    requests.refuse("put_object", unreachable(), taken())

    with pytest.raises(FileExistsError):
        storage.create(KEY, b"x")


def test_a_412_after_attempts_of_the_client_itself_may_be_ours(storage, requests):
    fault = taken()
    fault.response["ResponseMetadata"]["RetryAttempts"] = 1
    requests.refuse("put_object", fault)

    with pytest.raises(StorageError, match="whose it is"):
        storage.create(KEY, b"x")


def test_the_client_does_not_repeat_requests_unseen(storage):
    storage.list_folder("")

    config = storage._filesystem.s3.meta.config

    assert config.retries["total_max_attempts"] == 1
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"


def test_what_a_user_configures_wins(s3_url):
    options = {
        "config_kwargs": {"request_checksum_calculation": "when_supported", "read_timeout": 7},
        "use_listings_cache": True,
    }

    storage = open_storage(s3_url, options)
    storage.create(KEY, b"x")

    config = storage._filesystem.s3.meta.config
    assert config.request_checksum_calculation == "when_supported"
    assert config.response_checksum_validation == "when_required"
    assert config.read_timeout == 7
    assert storage._filesystem.dircache.use_listings_cache
    assert options["config_kwargs"] == {
        "request_checksum_calculation": "when_supported",
        "read_timeout": 7,
    }


def test_a_service_without_conditions_is_not_exclusive(storage, requests):
    requests.refuse("put_object", answer(501, "NotImplemented"))

    with pytest.raises(NotExclusiveError, match="single_writer=True"):
        storage.create(KEY, b"x")

    assert not storage.exclusive
    storage.create(KEY, b"first")  # what a single writer does next
    assert "IfNoneMatch" not in requests.arguments[-1]
    with pytest.raises(FileExistsError):
        storage.create(KEY, b"second")
    assert storage.read(KEY) == b"first"


# ---------------------------------------------------------------------------------- reading


def test_reading_survives_a_storm(storage, requests):
    storage.create(KEY, bytes(range(256)) * 100_000)
    storm = [answer(503, "SlowDown"), timeout(), ConnectionResetError()]
    out = bytearray(20_000_000)
    requests.refuse("get_object", *storm)

    storage.read_into(KEY, 256, memoryview(out))

    assert out == bytes(range(256)) * (20_000_000 // 256)
    requests.refuse("get_object", *storm)
    assert len(storage.read(KEY)) == 25_600_000
    requests.refuse("head_object", *storm)
    assert storage.size_bytes(KEY) == 25_600_000
    requests.refuse("list_objects_v2", *storm)
    assert storage.list_folder("") == Listing(("runs",), ())


def test_a_failed_range_stops_the_others_before_it_is_raised(storage, requests):
    storage.create(KEY, bytes(40_000_000))
    requests.refuse("get_object", None, answer(403, "AccessDenied"))
    out = bytearray(b"x" * 40_000_000)

    with pytest.raises(StorageError, match="access denied"):
        storage.read_into(KEY, 0, memoryview(out))

    seen = bytes(out)
    storage.size_bytes(KEY)
    assert bytes(out) == seen


class Trickle:
    """A body that holds so many zeros, and may break off."""

    def __init__(self, length: int, breaks_at: int | None = None) -> None:
        self.left, self.until = length, breaks_at

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self, most: int) -> bytes:
        await asyncio.sleep(0)
        if self.until == 0:
            raise ConnectionResetError
        most = min(most, self.left, self.left if self.until is None else self.until)
        self.left -= most
        self.until = None if self.until is None else self.until - most
        return bytes(most)


def served(asked, breaks_at):
    """Answer requests for ranges; those that begin at a key of *breaks_at* break off, once."""

    async def request(_method, **arguments):
        first, last = map(int, arguments["Range"].removeprefix("bytes=").split("-"))
        asked.append((first, last))
        await asyncio.sleep(0)
        body = Trickle(last + 1 - first, breaks_at.pop(first, None))
        return {"Body": body, "ContentRange": f"bytes {first}-{last}/9"}

    return request


def test_a_range_that_broke_off_goes_on_where_it_broke_off(storage, monkeypatch):
    asked = []
    monkeypatch.setattr(storage.client, "retry_delays_s", (0.0,))
    monkeypatch.setattr(storage.client, "request", served(asked, {5: 3_000_000}))
    out = bytearray(b"x" * 8_000_000)

    storage.read_into(KEY, 5, memoryview(out))

    assert out == bytes(8_000_000)
    assert asked == [(5, 8_000_004), (3_000_005, 8_000_004)]


def test_reads_of_many_threads_share_what_may_be_under_way(storage, monkeypatch):
    monkeypatch.setattr(s3, "RANGES_IN_FLIGHT", 3)
    monkeypatch.setattr(s3, "RANGE_BYTES", 2**20)
    answers, running, most = served([], {}), 0, 0

    async def counted(method, **arguments):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.001)
            return await answers(method, **arguments)
        finally:
            running -= 1

    monkeypatch.setattr(storage.client, "request", counted)
    with ThreadPoolExecutor(4) as threads:
        outs = [bytearray(b"x" * 5 * 2**20) for _ in range(4)]
        list(threads.map(lambda out: storage.read_into(KEY, 0, memoryview(out)), outs))

    assert most == 3
    assert all(out == bytes(len(out)) for out in outs)


def test_memory_held_by_a_read_is_bounded(storage, monkeypatch):
    out = bytearray(10**9)
    monkeypatch.setattr(storage.client, "request", served([], {}))
    tracemalloc.start()
    try:
        storage.read_into(KEY, 0, memoryview(out))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2 * s3.RANGES_IN_FLIGHT * 2**20 + 2**20


def test_a_fetch_takes_less_than_256_mib_beside_its_tensors():
    blocks = fetch.REMOTE_THREADS * fetch.REMOTE_BLOCK_BYTES

    assert blocks + 2 * s3.RANGES_IN_FLIGHT * 2**20 < 256 * 2**20


def test_a_service_that_ignores_ranges_is_noticed(storage, requests, monkeypatch):
    storage.create(KEY, b"0123456789")
    made = requests.__class__.__call__

    async def whole(self, method, **arguments):
        arguments.pop("Range", None)
        return await made(self, method, **arguments)

    monkeypatch.setattr(Requests, "__call__", whole)

    with pytest.raises(StorageError, match="does not serve ranges"):
        storage.read_into(KEY, 3, memoryview(bytearray(4)))


def test_one_missing_object_among_many_is_none_and_any_other_failure_raises(storage, requests):
    storage.create(KEY, b"x")
    assert storage.read_many([KEY, "missing"], 1) == [b"x", None]

    requests.refuse("get_object", None, answer(403, "AccessDenied"))
    with pytest.raises(StorageError, match="access denied"):
        storage.read_many([KEY, "missing"], 1)


def test_every_page_of_a_listing_is_read(storage, requests, monkeypatch):
    keys = [f"runs/a/{n:08}" for n in range(25)]
    for key in keys:
        storage.create(key, b"")
    made = Requests.__call__

    async def small_pages(self, method, **arguments):
        return await made(self, method, **arguments, MaxKeys=4)

    monkeypatch.setattr(Requests, "__call__", small_pages)
    requests.refuse("list_objects_v2", None, timeout(), None, answer(503))

    assert storage.list_folder("runs/a").files == tuple(f"{n:08}" for n in range(25))
    assert requests.made.count("list_objects_v2") == 9


def test_a_page_that_fails_for_good_raises(storage, requests):
    requests.refuse("list_objects_v2", answer(403, "AccessDenied"))

    with pytest.raises(StorageError, match="access denied"):
        storage.list_folder("runs")


def test_a_listing_cut_short_raises(storage, requests, monkeypatch):
    async def truncated(_self, _method, **_arguments):
        return {"IsTruncated": True, "Contents": [{"Key": "x"}]}

    monkeypatch.setattr(Requests, "__call__", truncated)

    with pytest.raises(StorageError, match="cut short"):
        storage.list_folder("runs")
    assert requests.made == []


def test_the_marker_object_of_a_folder_is_not_a_file(storage, s3_client, s3_url):
    bucket = s3_url.split("/")[2]
    s3_client.put_object(Bucket=bucket, Key="some/prefix/runs/", Body=b"")
    storage.create("runs/a/1", b"")

    assert storage.list_folder("runs") == Listing(("a",), ())


# ---------------------------------------------------------------------------------- wrong places


READS = [
    lambda storage: storage.read(KEY),
    lambda storage: storage.read_start(KEY, 4),
    lambda storage: storage.read_many([KEY], 4),
    lambda storage: storage.read_into(KEY, 0, memoryview(bytearray(4))),
    lambda storage: storage.size_bytes(KEY),
    lambda storage: storage.list_folder(""),
    lambda storage: list(storage.walk("")),
    lambda storage: list(storage.leftovers()),
    lambda storage: storage.written_at(KEY),
]
WRITES = [
    lambda storage: storage.create(KEY, b"x"),
    lambda storage: storage.open_writer("packs/ab/0").__exit__(None, None, None),
]


@pytest.mark.usefixtures("s3_environment")
@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_a_missing_bucket_is_named(call):
    storage = open_storage("s3://no-such-bucket-here/prefix")

    with pytest.raises(StorageError, match=r"no bucket 'no-such-bucket-here'") as caught:
        call(storage)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_denied_access_says_what_to_allow(storage, requests, call):
    for method in (
        *("get_object", "head_object", "put_object"),
        *("list_objects_v2", "list_multipart_uploads"),
    ):
        requests.refuse(method, answer(403, "AccessDenied"))

    with pytest.raises(StorageError, match=r"s3:GetObject, s3:PutObject and s3:ListBucket"):
        call(storage)


@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_a_wrong_endpoint_is_a_clear_error_without_the_endpoint(s3_url, call):
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "some-key-id",
        "secret": "very-secret-value",
    }
    storage = open_storage(s3_url, options)
    assert isinstance(storage, S3Storage)
    storage.client.retry_delays_s = (0.0, 0.0)

    with pytest.raises(StorageError, match="endpoint cannot be reached") as caught:
        call(storage)

    assert caught.value.errno == errno.ECONNREFUSED
    shown = "".join(traceback.format_exception(caught.value)) + repr(storage) + repr(vars(storage))
    for secret in ("127.0.0.1", "some-key-id", "very-secret-value"):
        assert secret not in shown


def test_missing_credentials_are_a_clear_error(s3_url, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(StorageError, match="no credentials"):
        open_storage(s3_url).read(KEY)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_bad_credentials_are_named_and_never_shown(storage, requests, code, monkeypatch, caplog):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "temporary-session-token")
    caplog.set_level(logging.INFO)
    requests.refuse(
        "put_object",
        answer(403, code, "key AKIAIOSFODNN7EXAMPLE with temporary-session-token is not good"),
    )

    with pytest.raises(StorageError, match=code) as caught:
        storage.create(KEY, b"x")

    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "AKIAIOSFODNN7EXAMPLE" not in shown
    assert "temporary-session-token" not in shown


# ---------------------------------------------------------------------------------- processes


def test_a_fork_while_other_threads_use_the_store_works(storage):
    storage.create(KEY, b"x")
    stop = threading.Event()
    failures: list[Exception] = []

    def use() -> None:
        while not stop.is_set():
            try:
                assert storage.read(KEY) == b"x"
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            process = multiprocessing.get_context("fork").Process(
                target=lambda number=number: storage.create(f"runs/{number}", b"child")
            )
            process.start()
            process.join(60)
            assert process.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert failures == []
    assert storage.list_folder("runs").files == ("0", "1", "2")


# ------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"endpoint": "hunter2"},
            "storage_options: s3:// takes no option 'endpoint'; did you mean 'endpoint_url'?",
        ),
        (
            {"client_kwargs": {"regoin_name": "hunter2"}},
            "storage_options['client_kwargs']: s3:// takes no option 'regoin_name', so leave it",
        ),
        (
            {"config_kwargs": {"sginature": "hunter2"}},
            "storage_options['config_kwargs']: s3:// takes no option 'sginature', so leave it",
        ),
    ],
)
def test_an_option_by_a_wrong_name_is_named_without_its_value(s3_url, options, said):
    with pytest.raises(ArgumentError) as raised:
        open_storage(s3_url, options).read(KEY)

    assert str(raised.value).startswith(said)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("name", ["client_kwargs", "config_kwargs", "s3_additional_kwargs"])
def test_an_option_that_takes_a_dict_takes_nothing_else(name):
    with pytest.raises(ArgumentError, match=f"'{name}' takes a dict") as raised:
        open_storage("s3://bucket/p", {name: "hunter2"})
    assert "hunter2" not in str(raised.value)
    assert open_storage("s3://bucket/p", {name: None})
