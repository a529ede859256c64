"""What S3 and its clients say when something fails, and what that means."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import aiohttp
from botocore import exceptions as botocore_errors  # type: ignore[import-untyped] # has no types

from ckptstore.errors import StorageError
from ckptstore.storage.redaction import redact

TRANSIENT_CODES = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
# Raised before a request left: it cannot have had an effect.
_NEVER_SENT = (
    botocore_errors.ConnectTimeoutError,
    botocore_errors.EndpointConnectionError,
    botocore_errors.ProxyConnectionError,
)
_CONNECTION_ERRORS = (
    *_NEVER_SENT,
    botocore_errors.ConnectionError,
    botocore_errors.HTTPClientError,
    botocore_errors.IncompleteReadError,
    botocore_errors.ReadTimeoutError,
    botocore_errors.ResponseStreamingError,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
)
_BATCH_REFUSED = frozenset(
    {
        "400",
        "BadDigest",
        "BadRequest",
        "InvalidArgument",
        "InvalidDigest",
        "InvalidRequest",
        "MalformedXML",
        "MissingContentMD5",
    }
)
# MinIO's (507, or 400 for a bucket's quota) and Ceph's (403). S3 itself never runs out of room.
_FULL = frozenset({"XMinioStorageFull", "InsufficientStorage", "507"})
_QUOTA_USED_UP = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
_FOR_GOOD = (botocore_errors.SSLError, aiohttp.InvalidURL)

FAILURES = (botocore_errors.BotoCoreError, botocore_errors.ClientError, *_CONNECTION_ERRORS)
"""What a request can raise."""

_CHECK_CREDENTIALS = "check the credentials (environment, profile or storage_options)"
_EXPLAINED: dict[str, tuple[int, str, str]] = {
    "AccessDenied": (
        errno.EACCES,
        "access denied",
        (
            "allow these credentials s3:GetObject, s3:PutObject and s3:ListBucket there, and to "
            "clean up s3:DeleteObject, s3:ListBucketMultipartUploads and s3:AbortMultipartUpload"
        ),
    ),
    "ExpiredToken": (errno.EACCES, "the credentials have expired", "renew them, then try again"),
    "InvalidAccessKeyId": (errno.EACCES, "the access key is unknown", _CHECK_CREDENTIALS),
    "SignatureDoesNotMatch": (errno.EACCES, "the secret key is not right", _CHECK_CREDENTIALS),
    "PermanentRedirect": (
        errno.EREMCHG if hasattr(errno, "EREMCHG") else errno.EIO,
        "the bucket is in another region",
        "name the region, e.g. storage_options={'client_kwargs': {'region_name': 'eu-west-1'}}",
    ),
    "NoCredentialsError": (errno.EACCES, "there are no credentials", _CHECK_CREDENTIALS),
    "EndpointConnectionError": (
        errno.ECONNREFUSED,
        "the endpoint cannot be reached",
        "check the endpoint (AWS_ENDPOINT_URL, or endpoint_url in storage_options) and the network",
    ),
    "InvalidBucketName": (errno.EINVAL, "that is no bucket name", "mend the address"),
    "XMinioStorageFull": (errno.ENOSPC, "the storage is full", "make room there, then try again"),
    "QuotaExceeded": (
        getattr(errno, "EDQUOT", errno.ENOSPC),
        "the quota is used up",
        "make room there or have the quota raised, then try again",
    ),
}
_SAME = {"403": "AccessDenied", "Forbidden": "AccessDenied", "AllAccessDisabled": "AccessDenied"}
_SAME |= {"TokenRefreshRequired": "ExpiredToken", "InvalidToken": "ExpiredToken"}
_SAME |= {"301": "PermanentRedirect", "PartialCredentialsError": "NoCredentialsError"}
_SAME |= {"ConnectTimeoutError": "EndpointConnectionError"}
_SAME |= dict.fromkeys(_FULL, "XMinioStorageFull") | dict.fromkeys(_QUOTA_USED_UP, "QuotaExceeded")


def code_of(error: BaseException) -> str:
    """Return S3's code for *error*, e.g. ``NoSuchKey``, or the name of its class."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return str(response.get("Error", {}).get("Code") or status_of(error))
    return type(error).__name__


def status_of(error: BaseException) -> int:
    """Return the HTTP status of *error*, 0 if it has none."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping):
        return 0
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(response.get("Error", {}).get("Code", ""))
    return int(status or (code if code.isdecimal() else 0))


def is_missing_object(error: BaseException) -> bool:
    """Say whether there is no such object; a HEAD cannot tell that from a missing bucket."""
    return code_of(error) in {"NoSuchKey", "404", "NotFound"}


def is_beyond_end(error: BaseException) -> bool:
    """Say whether a range began at or after an object's end."""
    return code_of(error) in {"InvalidRange", "416"} or status_of(error) == 416  # noqa: PLR2004 - HTTP's number


def is_taken(error: BaseException) -> bool:
    """Say whether a conditional PUT found an object; some services name no condition."""
    return code_of(error) in {"PreconditionFailed", "412"} or status_of(error) == 412  # noqa: PLR2004 - HTTP's number


def is_not_offered(error: BaseException) -> bool:
    """Say whether the server does not know conditional PUTs."""
    return code_of(error) == "NotImplemented" or status_of(error) == 501  # noqa: PLR2004 - HTTP's number


def is_unknown_method(error: BaseException) -> bool:
    """Say whether the service does not know a request at all."""
    return is_not_offered(error) or code_of(error) in {"MethodNotAllowed", "405"}


def is_batch_refused(error: BaseException) -> bool:
    """Say whether the service takes no DeleteObjects, or none with botocore's checksum."""
    return is_unknown_method(error) or code_of(error) in _BATCH_REFUSED


def is_full(error: BaseException) -> bool:
    """Say whether the service has no room, or none for this account; it stored nothing."""
    return code_of(error) in _FULL | _QUOTA_USED_UP or status_of(error) == 507  # noqa: PLR2004 - HTTP's number


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may succeed a little later."""
    # Room is waited for elsewhere, and for longer.
    if isinstance(error, _FOR_GOOD) or is_full(error):
        return False
    if isinstance(error, _CONNECTION_ERRORS):
        return True
    status = status_of(error)
    if is_not_offered(error):
        return False
    return code_of(error) in TRANSIENT_CODES or status in {408, 409, 429} or status >= 500  # noqa: PLR2004 - HTTP's number


def may_have_landed(error: BaseException) -> bool:
    """Say whether a request that failed like this may have had its effect all the same."""
    status = status_of(error)
    if is_full(error):
        return False
    if status:
        return status == 408 or status >= 500  # noqa: PLR2004 - HTTP's number
    return not isinstance(error, _NEVER_SENT)


def was_repeated(error: BaseException) -> bool:
    """Say whether the client repeated the request by itself before this answer."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, Mapping) else {}
    return bool(metadata.get("RetryAttempts"))


def cut_short(doing: str, shown: str) -> StorageError:
    """Say that a service does not tell where a listing goes on."""
    return StorageError(
        f"cannot {doing} {shown}: the service said that there is more and not where to go on, and "
        "a listing cut short is of no use; use another service"
    )


def explain(
    doing: str, shown: str, error: BaseException, options: Mapping[str, Any]
) -> StorageError:
    """Say what failed, where, why and what to do, without endpoint or credentials."""
    code = code_of(error)
    known = "XMinioStorageFull" if status_of(error) == 507 else code  # noqa: PLR2004 - HTTP's number
    number, cause, advice = _EXPLAINED.get(
        _SAME.get(known, known),
        (
            errno.EIO,
            _said(error, options),
            "try again later; if it stays, ask who runs the storage",
        ),
    )
    if isinstance(error, TimeoutError):
        number = errno.ETIMEDOUT
    failure = StorageError(f"cannot {doing} {shown}: {cause} ({code}); {advice}")
    failure.errno = number
    return failure


def _said(error: BaseException, options: Mapping[str, Any]) -> str:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        message = str(response.get("Error", {}).get("Message", ""))
        return redact(message, options).strip(" .") or f"HTTP status {status_of(error)}"
    return redact(str(error), options).strip(" .") or "no answer"
