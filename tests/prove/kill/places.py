"""Where a store is put for each kill: filled from a copy, looked at past ckptstore, emptied."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

Files = Mapping[str, bytes]


class Place(Protocol):
    """Somewhere a store can be."""

    url: str

    def files(self) -> dict[str, bytes]:
        """Return all that is there."""

    def fill(self, files: Files) -> None:
        """Make it hold *files* and nothing else."""

    def copy(self, folder: Path) -> Path:
        """Return it as a folder: its own or a copy in *folder*."""

    def uploads(self) -> list[str]:
        """Return the keys of unfinished multipart uploads."""


class FolderPlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)

    def files(self) -> dict[str, bytes]:
        """Return all that is there."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }

    def fill(self, files: Files) -> None:
        """Make it hold *files* and nothing else."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)
        write(self.folder, files)

    def copy(self, folder: Path) -> Path:  # noqa: ARG002 - it is a folder already
        """Return the folder."""
        return self.folder

    def uploads(self) -> list[str]:
        """Return nothing: there are no such things here."""
        return []


class BucketPlace:
    """A prefix of a bucket on moto, whose objects are reached in this process's own memory."""

    prefix = "some/prefix"

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._bucket = f"kill-{uuid.uuid4().hex}"
        backend.create_bucket(self._bucket, "us-east-1")
        self.url = f"s3://{self._bucket}/{self.prefix}"

    def files(self) -> dict[str, bytes]:
        """Return all that is there."""
        keys = self._backend.buckets[self._bucket].keys
        return {name.removeprefix(f"{self.prefix}/"): keys[name].value for name in list(keys)}

    def fill(self, files: Files) -> None:
        """Make it hold *files* and nothing else."""
        bucket = self._backend.buckets[self._bucket]
        for name in list(bucket.keys):
            bucket.keys[name].dispose()
        bucket.keys.clear()
        bucket.multiparts.clear()
        for name, data in files.items():
            self._backend.put_object(self._bucket, f"{self.prefix}/{name}", data)

    def copy(self, folder: Path) -> Path:
        """Return a copy in *folder*."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        write(folder, self.files())
        return folder

    def uploads(self) -> list[str]:
        """Return the keys of unfinished multipart uploads."""
        return [each.key_name for each in self._backend.buckets[self._bucket].multiparts.values()]


def write(folder: Path, files: Files) -> None:
    """Write files below a folder that isn't there; none, and it isn't made."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, Any]]:
    """Run an S3 server in this process. Yield its address and its memory."""
    from moto.backends import get_backend
    from moto.s3 import models
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # Real ones take no part below 5 MiB but the last: too much to kill a thousand times.
        with mock.patch.object(models, "S3_UPLOAD_PART_MIN_SIZE", 256):
            yield f"http://{host}:{port}", get_backend("s3")["123456789012"]["aws"]
    finally:
        server.stop()


def s3_environment(endpoint: str) -> dict[str, str]:
    """Return the variables that lead there."""
    return {
        "AWS_ACCESS_KEY_ID": "moto-takes-any-access-key",
        "AWS_SECRET_ACCESS_KEY": "moto-takes-any-secret-key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
