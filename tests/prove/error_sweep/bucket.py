"""A bucket in memory that answers requests as S3 does: consistent, conditional, in parts.

Thousands of cases need one that is fast; the long form runs a part of them on a server as well.
"""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime
from typing import Any, Self

from ckptstore.storage.s3 import S3Storage
from tests.storage.s3_faults import answer, taken

PART_BYTES = 2048
"""Small, so that even a small state takes several parts."""


def storage_in(request: Any, folder: str = "prefix") -> S3Storage:
    """Return a storage whose requests go to *request*; it waits between no attempts."""
    storage = S3Storage(
        f"bucket/{folder}",
        f"s3://bucket/{folder}",
        {"key": "x", "secret": "x"},
        part_bytes=PART_BYTES,
        retry_delays_s=(0, 0, 0, 0),
    )
    storage.client.request = request  # type: ignore[method-assign] # in S3's place
    return storage


class Body:
    """An answer's body."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def read(self, amount: int | None = None) -> bytes:
        end = len(self._rest) if amount is None else amount
        data, self._rest = self._rest[:end], self._rest[end:]
        return data


class Bucket:
    """Objects and unfinished uploads."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.times: dict[str, datetime] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self._numbers = itertools.count(1)

    def copy(self) -> Bucket:
        """Return another one that holds the same."""
        other = Bucket()
        other.objects, other.times = dict(self.objects), dict(self.times)
        return other

    async def __call__(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(method, **arguments)

    def answer(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Answer one request."""
        arguments.pop("Bucket")
        return dict(getattr(self, f"_{method}")(**arguments))

    def _put(self, key: str, data: bytes) -> dict[str, Any]:
        self.objects[key], self.times[key] = data, datetime.now(UTC)
        return {"ETag": hashlib.sha256(data).hexdigest()}

    def _get_object(self, Key: str, Range: str = "") -> dict[str, Any]:  # noqa: N803 - S3's names
        if Key not in self.objects:
            raise answer(404, "NoSuchKey")
        data, whole = self.objects[Key], {}
        if Range:
            first, last = map(int, Range.removeprefix("bytes=").split("-"))
            if first >= len(data):
                raise answer(416, "InvalidRange")
            size, data = len(data), data[first : last + 1]
            whole = {"ContentRange": f"bytes {first}-{first + len(data) - 1}/{size}"}
        return {
            "Body": Body(data),
            "ContentLength": len(data),
            "LastModified": self.times[Key],
            **whole,
        }

    def _head_object(self, Key: str) -> dict[str, Any]:  # noqa: N803 - S3's names
        if Key not in self.objects:
            raise answer(404, "404")
        return {"ContentLength": len(self.objects[Key]), "LastModified": self.times[Key]}

    def _head_bucket(self) -> dict[str, Any]:
        return {}

    def _put_object(self, Key: str, Body: Any, IfNoneMatch: str = "") -> dict[str, Any]:  # noqa: N803 - S3's names
        if IfNoneMatch and Key in self.objects:
            raise taken()
        return self._put(Key, Body.read())

    def _delete_objects(self, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - S3's names
        for each in Delete["Objects"]:
            self.objects.pop(each["Key"], None)
        return {}

    def _delete_object(self, Key: str) -> dict[str, Any]:  # noqa: N803 - S3's names
        self.objects.pop(Key, None)
        return {}

    def _list_objects_v2(
        self,
        Prefix: str = "",  # noqa: N803 - S3's names
        Delimiter: str = "",  # noqa: N803 - S3's names
        **_: Any,
    ) -> dict[str, Any]:
        folders, files = {}, []
        for key in sorted(self.objects):
            if not key.startswith(Prefix):
                continue
            head, cut, _rest = key[len(Prefix) :].partition(Delimiter or "\0")
            if cut:
                folders[Prefix + head + cut] = True
            else:
                size = len(self.objects[key])
                files.append({"Key": key, "Size": size, "LastModified": self.times[key]})
        return {
            "CommonPrefixes": [{"Prefix": each} for each in folders],
            "Contents": files,
            "IsTruncated": False,
        }

    def _create_multipart_upload(self, Key: str) -> dict[str, Any]:  # noqa: N803 - S3's names
        upload = str(next(self._numbers))
        self.uploads[upload] = (Key, {})
        return {"UploadId": upload}

    def _upload_part(self, Key: str, UploadId: str, PartNumber: int, Body: Any) -> dict[str, Any]:  # noqa: N803 - S3's names
        self._parts(Key, UploadId)[PartNumber] = Body.read()
        return {"ETag": f"part-{PartNumber}"}

    def _complete_multipart_upload(self, Key: str, UploadId: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's names
        parts = self._parts(Key, UploadId)
        del self.uploads[UploadId]
        return self._put(Key, b"".join(parts[number] for number in sorted(parts)))

    def _abort_multipart_upload(self, Key: str, UploadId: str) -> dict[str, Any]:  # noqa: N803 - S3's names
        self._parts(Key, UploadId)
        del self.uploads[UploadId]
        return {}

    def _list_multipart_uploads(self, Prefix: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's names
        return {
            "Uploads": [
                {"Key": key, "UploadId": upload, "Initiated": datetime.now(UTC)}
                for upload, (key, _parts) in self.uploads.items()
                if key.startswith(Prefix)
            ]
        }

    def _list_parts(self, Key: str, UploadId: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's names
        parts = self._parts(Key, UploadId)
        return {"Parts": [{"PartNumber": n, "Size": len(data)} for n, data in parts.items()]}

    def _parts(self, key: str, upload: str) -> dict[int, bytes]:
        if upload not in self.uploads or self.uploads[upload][0] != key:
            raise answer(404, "NoSuchUpload")
        return self.uploads[upload][1]
