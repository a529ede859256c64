"""What S3's answers mean."""

from __future__ import annotations

import errno

import aiohttp
import pytest
from botocore.exceptions import NoCredentialsError, SSLError

from ckptstore.storage import s3_errors
from ckptstore.storage.failures import is_full
from tests.storage.s3_faults import answer, taken, timeout, unreachable


@pytest.mark.parametrize(
    ("error", "transient", "landed"),
    [
        (answer(500, "InternalError"), True, True),
        (answer(502), True, True),
        (answer(503, "SlowDown"), True, True),
        (answer(400, "RequestTimeout"), True, False),
        (answer(408), True, True),
        (answer(409, "ConditionalRequestConflict"), True, False),
        (answer(409, "OperationAborted"), True, False),
        (answer(429, "TooManyRequests"), True, False),
        (answer(501, "NotImplemented"), False, True),
        (answer(507, "XMinioStorageFull"), False, False),
        (answer(507), False, False),
        (answer(403, "QuotaExceeded"), False, False),
        (answer(403, "AccessDenied"), False, False),
        (answer(404, "NoSuchKey"), False, False),
        (taken(), False, False),
        (timeout(), True, True),
        (TimeoutError(), True, True),
        (ConnectionResetError(), True, True),
        (aiohttp.ServerDisconnectedError(), True, True),
        (unreachable(), True, False),
        (SSLError(endpoint_url="https://x", error="bad certificate"), False, True),
        (NoCredentialsError(), False, True),
    ],
)
def test_what_may_pass_and_what_may_have_landed(error, transient, landed):
    assert s3_errors.is_transient(error) is transient
    assert s3_errors.may_have_landed(error) is landed


def test_a_412_is_known_by_code_or_by_status():
    assert s3_errors.is_taken(taken())
    assert s3_errors.is_taken(taken(named=False))
    assert s3_errors.is_taken(answer(412))
    assert not s3_errors.is_taken(answer(409))


def test_the_end_of_an_object_is_known_by_code_or_by_status():
    assert s3_errors.is_beyond_end(answer(416, "InvalidRange"))
    assert s3_errors.is_beyond_end(answer(416))
    assert not s3_errors.is_beyond_end(answer(404))


def test_a_missing_object_is_not_a_missing_bucket():
    assert s3_errors.is_missing_object(answer(404, "NoSuchKey"))
    assert s3_errors.is_missing_object(answer(404))
    assert not s3_errors.is_missing_object(answer(404, "NoSuchBucket"))


@pytest.mark.parametrize(
    ("error", "number", "says"),
    [
        (answer(403, "AccessDenied"), errno.EACCES, "s3:ListBucket"),
        (answer(403), errno.EACCES, "access denied"),
        (answer(403, "ExpiredToken"), errno.EACCES, "expired"),
        (answer(301, "PermanentRedirect"), getattr(errno, "EREMCHG", errno.EIO), "another region"),
        (unreachable(), errno.ECONNREFUSED, "cannot be reached"),
        (NoCredentialsError(), errno.EACCES, "no credentials"),
        (TimeoutError(), errno.ETIMEDOUT, "no answer"),
        (answer(418, "Teapot", "I am a teapot"), errno.EIO, "I am a teapot"),
        (answer(418, "Teapot", ""), errno.EIO, "HTTP status 418"),
    ],
)
def test_a_failure_names_the_place_the_cause_and_the_way_out(error, number, says):
    failure = s3_errors.explain("read", "s3://bucket/x", error, {})

    assert failure.errno == number
    assert str(failure).startswith("cannot read s3://bucket/x: ")
    assert says in str(failure)


def test_neither_endpoint_nor_options_are_repeated():
    failure = s3_errors.explain("read", "s3://b/x", timeout(), {"endpoint_url": "secret-host"})

    assert "secret-host" not in str(failure)


def test_a_service_without_a_request_says_so_by_code_or_by_status():
    for error in (answer(501), answer(501, "NotImplemented"), answer(405, "MethodNotAllowed")):
        assert s3_errors.is_unknown_method(error)
        assert s3_errors.is_batch_refused(error)
    for error in (answer(403, "AccessDenied"), answer(503), timeout(), answer(400, "ExpiredToken")):
        assert not s3_errors.is_unknown_method(error)
        assert not s3_errors.is_batch_refused(error)


def test_a_batch_is_refused_where_another_checksum_is_wanted():
    assert s3_errors.is_batch_refused(answer(400, "MissingContentMD5"))
    assert s3_errors.is_batch_refused(answer(400))
    assert not s3_errors.is_unknown_method(answer(400, "MissingContentMD5"))


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (answer(507, "XMinioStorageFull"), errno.ENOSPC, "the storage is full"),
        (answer(507, "Insufficient"), errno.ENOSPC, "the storage is full"),
        (answer(403, "QuotaExceeded"), errno.EDQUOT, "the quota is used up"),
        (answer(400, "XMinioAdminBucketQuotaExceeded"), errno.EDQUOT, "the quota is used up"),
    ],
)
def test_no_room_is_told_from_every_other_failure(error, code, said):
    failure = s3_errors.explain("write", "s3://bucket/key", error, {})

    assert s3_errors.is_full(error)
    assert is_full(failure)
    assert failure.errno == code
    assert said in str(failure)
    assert not s3_errors.is_full(answer(503, "SlowDown"))
