"""Write one small file of a user's own choosing, anywhere. No part of a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ckptstore.errors import ArgumentError
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.opening import open_storage, parse
from ckptstore.storage.remote import RemoteStorage


def write_file(
    url: str | os.PathLike[str],
    data: bytes,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write *data* to *url*, over what is there: readers see the old file or the new one, whole.

    On this machine a temporary file is renamed over it; an object store puts it as one object. A
    filesystem that offers neither (SFTP, say) writes as well as it can.

    Args:
        url: A path, or an address that fsspec knows. Folders on the way are made.
        data: The whole content.
        storage_options: Arguments of the filesystem's class; they are never shown.

    Raises:
        ArgumentError: *url* names no file.
        MissingPackageError: The package for this protocol is not installed.
        StorageError: It could not be written; what was there still is.
    """
    address = parse(url)
    if address.protocol == "file":
        folder, name = os.path.split(address.path)
    else:
        folder, _, name = address.path.rpartition("/")
        folder = f"{address.protocol}://{folder}"
    if not name or os.fspath(url).endswith(("/", os.sep)):
        raise ArgumentError(f"{address.url} names a folder: name the file to write")
    storage: LocalStorage | RemoteStorage = open_storage(folder, storage_options)
    try:
        storage.replace(name, data)
    finally:
        storage.close()
