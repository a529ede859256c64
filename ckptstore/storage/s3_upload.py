"""Write a large object to S3 in parts, several of them on their way at once."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ckptstore.errors import StorageError
from ckptstore.storage import s3_errors
from ckptstore.storage.parallel import end

if TYPE_CHECKING:
    from ckptstore.storage.s3 import S3Storage

PARTS_IN_FLIGHT = 12
"""How many parts are on their way at once, for all objects of a storage together."""
MOST_PARTS = 10_000
"""S3 takes no more parts than that."""


class S3Writer:
    """An object being uploaded: a multipart upload, or one PUT if it is no larger than a part.

    At most :data:`PARTS_IN_FLIGHT` parts are in memory, however many objects are being written to
    the storage, and two for each object: the one being filled, and one to be filled again.
    """

    def __init__(self, storage: S3Storage, bucket: str, name: str, key: str) -> None:
        self._storage = storage
        self._key = key
        self._upload = _Upload(storage, bucket, name)
        self._part = io.BytesIO()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._give_up(error)
            return
        try:
            self._run(self._upload.finish, self._part)
        except BaseException as failure:
            self._give_up(failure)
            raise

    def write(self, data: memoryview) -> None:
        """Append bytes.

        Raises:
            StorageError: They could not be written.
        """
        if not data.nbytes:  # an empty view of anything but bytes cannot be cast
            return
        data = data.cast("B")
        while data:
            room = self._storage.part_bytes - self._part.tell()
            self._part.write(data[:room])
            data = data[room:]
            if self._part.tell() == self._storage.part_bytes:
                full, self._part = self._part, self._upload.empty_part()
                self._run(self._upload.add, full)

    def _run(self, work: Any, *args: Any) -> None:
        self._storage.run("write", self._key, work, *args)

    def _give_up(self, error: BaseException) -> None:
        """Abort the upload; if that fails too, note on *error* what is left."""
        try:
            self._run(self._upload.abort)
        except (StorageError, MemoryError) as failure:
            error.add_note(
                f"the unfinished multipart upload of {self._storage.url}/{self._key} could not be "
                f"aborted and takes up room until it is: {str(failure) or 'not enough memory'}"
            )


class _Upload:
    """The part of an upload that lives on fsspec's loop."""

    def __init__(self, storage: S3Storage, bucket: str, name: str) -> None:
        self._storage = storage
        self._object = {"Bucket": bucket, "Key": name}
        self._id: str | None = None
        self._creations = 0  # how often creating the upload was tried: each may have made one
        self._ended = False
        self._size_bytes = 0
        self._sending: list[asyncio.Task[dict[str, Any]]] = []
        self._spare: list[io.BytesIO] = []

    def empty_part(self) -> io.BytesIO:
        """Return memory for a part: that of one already sent, where there is one."""
        try:
            part = self._spare.pop()
        except IndexError:
            return io.BytesIO()
        part.seek(0)
        return part

    async def add(self, part: io.BytesIO) -> None:
        """Start sending a part; wait while too many are on their way."""
        if self._id is None:
            self._id = await self._storage.client.repeat(self._begin)
        number = len(self._sending) + 1
        if number > MOST_PARTS:
            raise StorageError(
                f"{self._storage.url}/{self._object['Key']} has more than {MOST_PARTS} parts of "
                f"{self._storage.part_bytes} bytes, and S3 takes no more; use larger parts"
            )
        slots = self._storage.client.slots("parts", PARTS_IN_FLIGHT)
        await slots.acquire()
        sending = asyncio.ensure_future(self._send(number, part))
        # Not in the task: one that is cancelled before it begins runs nothing.
        sending.add_done_callback(lambda _: slots.release())
        earlier = list(self._sending)
        self._sending.append(sending)
        self._size_bytes += part.tell()
        for task in earlier:
            if task.done():
                task.result()  # raises what failed, now rather than at the end

    async def finish(self, rest: io.BytesIO) -> None:
        """Send what is left and have the object appear."""
        rest.truncate()
        if self._id is None:
            await self._storage.client.repeat_request("put_object", Body=rest, **self._object)
            return
        if rest.tell():
            await self.add(rest)
        parts = await asyncio.gather(*self._sending)
        await self._complete(list(parts))
        self._ended = True
        if self._creations > 1:
            with suppress(*s3_errors.FAILURES):  # the object is there: what stays is only room
                await self._abort(await self._find())

    async def abort(self) -> None:
        """Stop sending, and have S3 forget the parts it has."""
        await end(self._sending)
        if self._ended or not self._creations:
            return
        unsure = self._id is None or self._creations > 1
        await self._abort([self._id] if self._id else [])
        if unsure:
            await self._abort(await self._find())

    async def _begin(self) -> str:
        self._creations += 1
        answer = await self._storage.client.request("create_multipart_upload", **self._object)
        return str(answer["UploadId"])

    async def _abort(self, uploads: list[str]) -> None:
        for upload in uploads:
            try:
                await self._storage.client.repeat_request(
                    "abort_multipart_upload", UploadId=upload, **self._object
                )
            except s3_errors.FAILURES as error:
                if s3_errors.code_of(error) != "NoSuchUpload":
                    raise

    async def _send(self, number: int, part: io.BytesIO) -> dict[str, Any]:
        answer = await self._storage.client.repeat_request(
            "upload_part", Body=part, PartNumber=number, UploadId=self._id, **self._object
        )
        self._spare = [part]  # one is enough while others are sent, and each is 16 MiB
        return {"PartNumber": number, "ETag": answer["ETag"]}

    async def _complete(self, parts: list[dict[str, Any]]) -> None:
        try:
            await self._storage.client.repeat_request(
                "complete_multipart_upload",
                UploadId=self._id,
                MultipartUpload={"Parts": parts},
                **self._object,
            )
        except s3_errors.FAILURES as error:
            # The reply to an earlier attempt may have been lost: then the object is there, and the
            # upload is not.
            if s3_errors.code_of(error) != "NoSuchUpload" or not await self._is_there():
                raise

    async def _is_there(self) -> bool:
        try:
            answer = await self._storage.client.repeat_request("head_object", **self._object)
        except s3_errors.FAILURES as error:
            if s3_errors.is_missing_object(error):
                return False
            raise
        return int(answer["ContentLength"]) == self._size_bytes

    async def _find(self) -> list[str]:
        """Find uploads of this object whose creation got no answer. Nobody else uses its name."""
        answer = await self._storage.client.repeat_request(
            "list_multipart_uploads", Bucket=self._object["Bucket"], Prefix=self._object["Key"]
        )
        return [
            each["UploadId"]
            for each in answer.get("Uploads", [])
            if each["Key"] == self._object["Key"]
        ]
