"""A store in S3, or in one of the many services that speak its language.

Requests go through s3fs's client and fsspec's loop, one attempt at a time: how often a request was
tried decides what a 412 means, so neither library may repeat it unseen.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from ckptstore.errors import ArgumentError, NoAnswerError, NotExclusiveError, StorageError
from ckptstore.storage import s3_errors
from ckptstore.storage.base import Leftover, Listing, Stored
from ckptstore.storage.failures import check_key, check_keys, no_leftover, not_found
from ckptstore.storage.parallel import in_parallel
from ckptstore.storage.remote import (
    IN_FLIGHT,
    RemoteStorage,
    ends_early,
    no_bucket,
)
from ckptstore.storage.remote_writer import PART_BYTES
from ckptstore.storage.s3_client import CONFIG, RETRY_DELAYS_S, S3Client
from ckptstore.storage.s3_tree import S3Tree
from ckptstore.storage.s3_upload import S3Writer
from ckptstore.storage.times import in_utc

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

RANGE_BYTES = 32 * 2**20
"""The largest range of one request. A range goes straight to where it is wanted, so its size costs
no memory; every request costs the way there and back, and some services read the whole object."""

RANGES_IN_FLIGHT = 16
"""How many ranges are on their way at once, for all threads and all packs together."""

_READ_BYTES = 2**20


class S3Storage(RemoteStorage):
    """A store below a prefix of a bucket.

    Args:
        root: ``bucket/prefix``.
        url: The address to show.
        options: Arguments of ``s3fs.S3FileSystem``; what is given there wins over our defaults.
        protocol: ``s3`` or ``s3a``.
        part_bytes: The size of the parts of a multipart upload. S3 takes 5 MiB and up.
        retry_delays_s: How long to wait before each further attempt at a request.

    Raises:
        ArgumentError: An option that takes a dict is none.
    """

    def __init__(
        self,
        root: str,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        protocol: str = "s3",
        part_bytes: int = PART_BYTES,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        options = dict(options or {})
        for name in ("client_kwargs", "config_kwargs", "s3_additional_kwargs"):
            if not isinstance(options.get(name) or {}, Mapping):
                raise ArgumentError(f"storage_options: {name!r} takes a dict of names to values")
        options["config_kwargs"] = {**CONFIG, **(options.get("config_kwargs") or {})}
        super().__init__(protocol, root, url, options)
        self.exclusive = True
        self.part_bytes = part_bytes
        self.client = S3Client(self._instances, retry_delays_s)
        self._bucket, _, self._prefix = self._root.partition("/")
        self._tree = S3Tree(self, self._bucket, f"{self._prefix}/" if self._prefix else "")

    # ------------------------------------------------------------------------------------ reading

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        return self.run("read", key, self._get, key)

    def read_start(self, key: str, length: int) -> bytes:
        """Return the first *length* bytes of an object, fewer if it is shorter."""
        return self.run("read", key, self._get_start, key, length)

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Return the first *length* bytes of each object, None where there is none; in parallel."""
        if not keys:
            return []
        what = keys[0] if len(keys) == 1 else ""
        return self.run("read", what, self._get_starts, keys, length)

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        """Fill *out* with the bytes of an object from *start* on, several ranges at a time.

        Raises:
            EOFError: The object ends before *out* is full.
        """
        if not out.nbytes:  # an empty view of anything but bytes cannot be cast
            self.size_bytes(key)
            return
        self.run("read", key, self._fill, key, start, out.cast("B"))

    def size_bytes(self, key: str) -> int:
        """Return an object's size."""
        return self.run("look at", key, self._size, key)

    def list_folder(self, key: str) -> Listing:
        """List what lies directly below *key*, freshly, every page of it."""
        return self.run("list", key, self._list, key)

    def walk(self, folder: str) -> Iterator[Stored]:
        """Yield every object below *folder*, freshly, every page of it."""
        return self._tree.walk(check_key(folder))

    def written_at(self, key: str) -> datetime | None:
        """Return an object's LastModified; of a multipart upload that is when it began."""
        answer = self.run("look at", key, self._head, key)
        return in_utc(answer.get("LastModified"))

    def leftovers(self) -> Iterator[Leftover]:
        """Yield every unfinished multipart upload; see :meth:`S3Tree.leftovers`."""
        return self._tree.leftovers()

    # ----------------------------------------------------------------------------------- removing

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        """Remove objects, a thousand a request. Return what may still be there, by key."""
        return self._tree.delete(check_keys(keys))

    def clear(self, leftover: Leftover) -> None:
        """Abort an unfinished upload; nothing happens if it is gone already."""
        if leftover.upload is None:
            raise no_leftover(leftover.key)
        self._tree.clear(check_key(leftover.key), leftover.upload)

    # ------------------------------------------------------------------------------------ writing

    def create(self, key: str, data: bytes) -> None:
        """Create an object with ``If-None-Match: *``.

        Raises:
            FileExistsError: There is one already, and this call cannot have made it.
            NotExclusiveError: The service does not know the condition. ``exclusive`` is false from
                then on, and the next call looks first and writes then.
            StorageError: Anything else; the object may be there.
        """
        self.run("create", key, self._create, key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Write an object over what is there. For users' own files, never for a store's."""
        self.run("write", key, self.client.repeat, lambda: self._put(key, data))

    def open_writer(self, key: str) -> S3Writer:
        """Start writing a large object: a multipart upload, or one PUT if it stays small."""
        return S3Writer(self, self._bucket, self._object(key), key)

    # ------------------------------------------------------------------------------------ details

    def _object(self, key: str) -> str:
        check_key(key)
        return "/".join(part for part in (self._prefix, key) if part)

    def run(
        self,
        doing: str,
        key: str,
        work: Callable[Arguments, Awaitable[Result]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Await *work* on fsspec's loop, and say what failed in our terms."""
        with self._translated(doing, key):
            return self.client.run(work, *args, **kwargs)

    def explain(self, doing: str, key: str, error: Exception) -> Exception:
        """Say what failed, in S3's terms."""
        shown = self.shown(key)
        if s3_errors.code_of(error) == "NoSuchBucket":
            return no_bucket(doing, shown, self._bucket)
        if isinstance(error, FileExistsError):
            return error
        if s3_errors.is_missing_object(error) and doing in {"read", "look at"}:
            return not_found(shown)
        return self.failure(doing, key, error)

    def failure(self, doing: str, key: str, error: Exception) -> StorageError:
        """Say why a request failed."""
        return s3_errors.explain(doing, self.shown(key), error, self._options)

    # ----------------------------------------------------------------------------------- coroutines

    async def _get(self, key: str, **range_: str) -> bytes:
        async def attempt() -> bytes:
            answer = await self.client.request(
                "get_object", Bucket=self._bucket, Key=self._object(key), **range_
            )
            async with answer["Body"] as body:
                return bytes(await body.read())

        return await self.client.repeat(attempt)

    async def _get_start(self, key: str, length: int) -> bytes:
        if not length:
            await self._size(key)
            return b""
        try:
            data = await self._get(key, Range=f"bytes=0-{length - 1}")
        except s3_errors.FAILURES as error:
            if s3_errors.is_beyond_end(error):  # no range of an empty object can be satisfied
                return b""
            raise
        return data[:length]

    async def _get_starts(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        async def one(key: str) -> bytes | None:
            try:
                return await self._get_start(key, length)
            except s3_errors.FAILURES as error:
                if s3_errors.is_missing_object(error):
                    return None
                raise

        return await in_parallel(one, keys, limit=2 * IN_FLIGHT)

    async def _fill(self, key: str, start: int, out: memoryview) -> None:
        slots = self.client.slots("ranges", RANGES_IN_FLIGHT)

        async def one(begin: int) -> None:
            piece = out[begin : begin + RANGE_BYTES]
            filled = 0

            async def go_on() -> None:
                """Ask for what is missing yet: an attempt that broke off has brought the rest."""
                nonlocal filled
                async for length in self._chunks(key, start + begin + filled, piece[filled:]):
                    filled += length

            async with slots:
                await self.client.repeat(go_on)
            if filled < piece.nbytes:
                raise ends_early(self.shown(key), start + begin + filled, start, out.nbytes)

        await in_parallel(one, range(0, out.nbytes, RANGE_BYTES), limit=RANGES_IN_FLIGHT)

    async def _chunks(self, key: str, start: int, out: memoryview) -> AsyncIterator[int]:
        """Read a range straight into *out*; yield the lengths of what came, as it comes."""
        if not out.nbytes:
            return
        try:
            answer = await self.client.request(
                "get_object",
                Bucket=self._bucket,
                Key=self._object(key),
                Range=f"bytes={start}-{start + out.nbytes - 1}",
            )
        except s3_errors.FAILURES as error:
            if s3_errors.is_beyond_end(error):
                return
            raise
        async with answer["Body"] as body:
            found = answer.get("ContentRange")
            if not str(found).startswith(f"bytes {start}-") and (start or found):
                raise StorageError(
                    f"{self.shown(key)}: asked for bytes from {start} on, the service answered "
                    f"{found!r}: it does not serve ranges, which reading needs; use another one"
                )
            got = 0
            while got < out.nbytes and (
                chunk := await body.read(min(_READ_BYTES, out.nbytes - got))
            ):
                out[got : got + len(chunk)] = chunk
                got += len(chunk)
                yield len(chunk)

    async def _size(self, key: str) -> int:
        return int((await self._head(key))["ContentLength"])

    async def _head(self, key: str) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await self.client.repeat_request(
                "head_object", Bucket=self._bucket, Key=self._object(key)
            )
        except s3_errors.FAILURES as error:
            if s3_errors.is_missing_object(error):
                await self._check_bucket()
            raise
        return answer

    async def _check_bucket(self) -> None:
        """Tell a missing bucket from a missing object: the answer to a HEAD has no room for that.

        Raises:
            StorageError: There is no such bucket.
        """
        try:
            await self.client.repeat_request("head_bucket", Bucket=self._bucket)
        except s3_errors.FAILURES as error:
            if s3_errors.is_missing_object(error):
                raise no_bucket("look at", self.url, self._bucket) from None
            raise

    async def _list(self, key: str) -> Listing:
        prefix = self._object(key) + "/" if self._object(key) else ""
        folders: list[str] = []
        files: list[str] = []
        place: dict[str, str] = {}
        while True:
            page = await self.client.repeat_request(
                "list_objects_v2", Bucket=self._bucket, Prefix=prefix, Delimiter="/", **place
            )
            folders += [
                each["Prefix"].removeprefix(prefix).rstrip("/")
                for each in page.get("CommonPrefixes", [])
            ]
            # The object named like the folder itself is what some consoles make of "new folder".
            files += [
                each["Key"].removeprefix(prefix)
                for each in page.get("Contents", [])
                if each["Key"] != prefix
            ]
            if not page.get("IsTruncated"):
                return Listing(tuple(sorted(folders)), tuple(sorted(files)))
            following = page.get("NextContinuationToken")
            if not following or following == place.get("ContinuationToken"):
                raise s3_errors.cut_short("list", self.shown(key))
            place = {"ContinuationToken": following}

    async def _create(self, key: str, data: bytes) -> None:
        if not self.exclusive:
            await self._create_unless_seen(key, data)
            return
        landed = False  # whether an earlier attempt may have come through
        for delay_s in (*self.client.retry_delays_s, None):
            try:
                await self._put(key, data, IfNoneMatch="*")
            except s3_errors.FAILURES as error:
                if s3_errors.is_taken(error):
                    raise self._taken(key, ours=landed or s3_errors.was_repeated(error)) from None
                if s3_errors.is_not_offered(error):
                    self.exclusive = False
                    raise NotExclusiveError(
                        f"{self.url}: this service does not know conditional PUTs, so two writers "
                        "could overwrite each other; open the store with single_writer=True, or "
                        "use another service"
                    ) from None
                landed = landed or s3_errors.may_have_landed(error)
                if delay_s is None or not s3_errors.is_transient(error):
                    if landed:
                        raise NoAnswerError(str(self.failure("create", key, error))) from None
                    raise
                await self.client.pause(delay_s)
            else:
                return

    def _taken(self, key: str, *, ours: bool) -> OSError:
        if not ours:
            return FileExistsError(f"{self.shown(key)} is there already")
        return StorageError(
            f"cannot tell who created {self.shown(key)}: an attempt of this call got no answer, "
            "and the next found an object there; read it to see whose it is"
        )

    async def _create_unless_seen(self, key: str, data: bytes) -> None:
        try:
            await self._size(key)
        except s3_errors.FAILURES as error:
            if not s3_errors.is_missing_object(error):
                raise
        else:
            raise self._taken(key, ours=False)
        await self.client.repeat(lambda: self._put(key, data))

    async def _put(self, key: str, data: bytes, **condition: str) -> None:
        # A BytesIO, as aiohttp warns of plain bytes above 1 MiB; it shares them.
        body = io.BytesIO(data)
        await self.client.request(
            "put_object", Bucket=self._bucket, Key=self._object(key), Body=body, **condition
        )
