"""What lies below a prefix of a bucket, all of it: listed page by page, and removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped] # has no types

from ckptstore.errors import StorageError
from ckptstore.storage import s3_errors
from ckptstore.storage.base import Leftover, Stored
from ckptstore.storage.parallel import in_parallel
from ckptstore.storage.remote import IN_FLIGHT
from ckptstore.storage.times import in_utc

if TYPE_CHECKING:
    from ckptstore.storage.s3 import S3Storage

BATCH = 1000
"""DeleteObjects takes no more keys than that."""

_LIST_UPLOADS = "list the unfinished uploads of"


class S3Tree:
    """All objects and unfinished uploads of a store.

    Args:
        storage: Makes the requests and names what fails.
        bucket: Its bucket.
        prefix: What every object's name begins with: empty, or with a slash at its end.
    """

    def __init__(self, storage: S3Storage, bucket: str, prefix: str) -> None:
        self._storage = storage
        self._bucket = bucket
        self._prefix = prefix
        self._in_batches = True  # until the service says that it has no DeleteObjects for us

    def walk(self, folder: str) -> Iterator[Stored]:
        """Yield every object below a folder, in the order of the names' bytes.

        Raises:
            StorageError: A page could not be had, or the service does not say where it goes on.
        """
        prefix = f"{self._prefix}{folder}/" if folder else self._prefix
        place: dict[str, str] = {}
        while True:
            page = self._storage.run("list", folder, self._objects, prefix, place)
            for each in page.get("Contents", []):
                # Some consoles make a "new folder" an object whose name ends like that. What is not
                # below the prefix is another's, should a service forget to leave it out.
                if each["Key"].startswith(prefix) and not each["Key"].endswith("/"):
                    yield Stored(
                        each["Key"].removeprefix(self._prefix),
                        int(each["Size"]),
                        in_utc(each.get("LastModified")),
                    )
            if not page.get("IsTruncated"):
                return
            following = page.get("NextContinuationToken")
            if not following or following == place.get("ContinuationToken"):
                raise s3_errors.cut_short("list", self._storage.shown(folder))
            place = {"ContinuationToken": following}

    def leftovers(self) -> Iterator[Leftover]:
        """Yield every unfinished multipart upload.

        A service that knows no such listing (it says so: 501 or 405) has none that anybody could
        find; nothing is yielded then. MinIO lists those of one exact name alone and so yields none
        here either; it drops stale ones by itself.

        Raises:
            StorageError: A page could not be had, or the service does not say where it goes on.
        """
        place: dict[str, str] = {}
        while True:
            page = self._storage.run(_LIST_UPLOADS, "", self._uploads, place)
            for each in page.get("Uploads", []):
                if each["Key"].startswith(self._prefix):
                    yield Leftover(
                        each["Key"].removeprefix(self._prefix),
                        each["UploadId"],
                        None,
                        in_utc(each.get("Initiated")),
                    )
            if not page.get("IsTruncated"):
                return
            following = {
                marker: page[f"Next{marker}"]
                for marker in ("KeyMarker", "UploadIdMarker")
                if page.get(f"Next{marker}")
            }
            if "KeyMarker" not in following or following == place:
                raise s3_errors.cut_short(_LIST_UPLOADS, self._storage.shown(""))
            place = following

    def clear(self, key: str, upload: str) -> None:
        """Have S3 forget an unfinished upload.

        Raises:
            StorageError: It could not be aborted.
        """
        self._storage.run("abort the unfinished upload of", key, self._abort, key, upload)

    def delete(self, keys: Sequence[str]) -> dict[str, StorageError]:
        """Remove objects, a thousand a request.

        Where a request fails whole (no connection, a storm that outlasts every attempt), the
        requests after it are not made: each would take as long to fail.

        Returns:
            What may still be there, by key.
        """
        failed: dict[str, StorageError] = {}
        for start in range(0, len(keys), BATCH):
            try:
                failed |= self._storage.run("delete", "", self._delete, keys[start : start + BATCH])
            except StorageError as error:
                failed |= dict.fromkeys(keys[start:], error)
                break
        return failed

    # ----------------------------------------------------------------------------------- coroutines

    async def _objects(self, prefix: str, place: Mapping[str, str]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._storage.client.repeat_request(
            "list_objects_v2", Bucket=self._bucket, Prefix=prefix, **place
        )
        return answer

    async def _uploads(self, place: Mapping[str, str]) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await self._storage.client.repeat_request(
                "list_multipart_uploads", Bucket=self._bucket, Prefix=self._prefix, **place
            )
        except s3_errors.FAILURES as error:
            # After a first page it has that listing, and what it says then is a failure.
            if place or not s3_errors.is_unknown_method(error):
                raise
            return {}
        return answer

    async def _abort(self, key: str, upload: str) -> None:
        try:
            await self._storage.client.repeat_request(
                "abort_multipart_upload",
                Bucket=self._bucket,
                Key=self._prefix + key,
                UploadId=upload,
            )
        except s3_errors.FAILURES as error:
            if s3_errors.code_of(error) != "NoSuchUpload":
                raise

    async def _delete(self, keys: Sequence[str]) -> dict[str, StorageError]:
        """Remove a batch. What the answer names as failed and may pass is tried again."""
        failed: dict[str, StorageError] = {}
        for delay_s in (*self._storage.client.retry_delays_s, None):
            errors = await self._delete_together(keys) if self._in_batches else None
            if errors is None:
                return failed | await self._delete_singly(keys)
            again = [key for key, error in errors.items() if s3_errors.is_transient(error)]
            if delay_s is None:
                again = []
            for key in errors.keys() - again:
                failed[key] = self._storage.failure("delete", key, errors[key])
            if not again or delay_s is None:
                break
            await self._storage.client.pause(delay_s)
            keys = again
        return failed

    async def _delete_together(self, keys: Sequence[str]) -> dict[str, ClientError] | None:
        """Make one DeleteObjects. Return what failed, or None where the service takes none.

        It must carry a checksum. botocore sends a CRC32, whatever ``request_checksum_calculation``
        says; older services want Content-MD5 in its place, which botocore no longer makes, and
        refuse. They are asked for one object at a time from then on.
        """
        names = {self._prefix + key: key for key in keys}
        try:
            answer = await self._storage.client.repeat_request(
                "delete_objects",
                Bucket=self._bucket,
                Delete={"Objects": [{"Key": name} for name in names], "Quiet": True},
            )
        except s3_errors.FAILURES as error:
            if not s3_errors.is_batch_refused(error):
                raise
            self._in_batches = False
            return None
        errors: dict[str, ClientError] = {}
        for each in answer.get("Errors", []):
            failure = ClientError({"Error": dict(each)}, "DeleteObjects")
            if s3_errors.is_missing_object(failure):
                continue
            # An error that names none of our objects may be about any of them.
            named = [names[each["Key"]]] if each.get("Key") in names else keys
            errors |= dict.fromkeys(named, failure)
        return errors

    async def _delete_singly(self, keys: Sequence[str]) -> dict[str, StorageError]:
        async def one(key: str) -> StorageError | None:
            try:
                await self._storage.client.repeat_request(
                    "delete_object", Bucket=self._bucket, Key=self._prefix + key
                )
            except s3_errors.FAILURES as error:
                if s3_errors.is_missing_object(error):
                    return None
                if s3_errors.is_transient(error):  # and tried often enough: the storage is down
                    raise
                return self._storage.failure("delete", key, error)
            return None

        errors = await in_parallel(one, keys, limit=2 * IN_FLIGHT)
        return {key: error for key, error in zip(keys, errors, strict=True) if error is not None}
