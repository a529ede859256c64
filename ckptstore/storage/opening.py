"""From the address a user writes to the storage behind it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
from fsspec.registry import known_implementations

from ckptstore.errors import ArgumentError, MissingPackageError
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.remote import RemoteStorage

_ADDRESS = re.compile(r"(?s)([A-Za-z][A-Za-z0-9+.\-]*)://(.*)")
_DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)")
_AZURE = frozenset({"abfs", "abfss", "adl", "az"})
# What to install for a protocol; an extra of ours where there is one.
_PACKAGES = {
    "s3": "'ckptstore[s3]'",
    "s3a": "'ckptstore[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
    "az": "adlfs",
    "oss": "ossfs",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "http": "aiohttp",
    "https": "aiohttp",
}


class Address(NamedTuple):
    """Where something is, taken apart."""

    protocol: str
    """fsspec's name of the filesystem, ``file`` for this machine's folders."""
    path: str
    """An absolute local path, or what follows ``protocol://``, without slashes at its ends."""

    @property
    def url(self) -> str:
        """The address in its one spelling, for people."""
        return self.path if self.protocol == "file" else f"{self.protocol}://{self.path}"


def open_storage(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> LocalStorage | RemoteStorage:
    """Open the storage at *url*. Touches nothing there.

    Args:
        url: A folder (``~`` is expanded), ``file://…``, or an address of any filesystem that fsspec
            knows: ``s3://bucket/prefix``, ``gs://…``, ``memory://…``.
        storage_options: Arguments of the filesystem's class: credentials, endpoint and the like.
            They are never shown.

    Raises:
        ArgumentError: There can be no store at such an address.
        MissingPackageError: The package for this protocol is not installed.
    """
    address = parse(url)
    options = dict(storage_options or {})
    if address.protocol == "file":
        if options:
            raise ArgumentError(
                f"storage_options ({', '.join(sorted(map(str, options)))}) are for remote storage; "
                "a folder takes none"
            )
        return LocalStorage(address.path)
    kind = _filesystem_class(address.protocol)
    if address.protocol in {"s3", "s3a"}:
        from ckptstore.storage.s3 import S3Storage

        return S3Storage(address.path, address.url, options, protocol=address.protocol)
    # Some addresses hold arguments, e.g. the host in sftp://host/path.
    options = {**kind._get_kwargs_from_urls(address.url), **options}  # noqa: SLF001 - as fsspec.core calls it
    root = kind._strip_protocol(address.url)  # noqa: SLF001 - as fsspec.core calls it
    return RemoteStorage(address.protocol, root, address.url, options)


def parse(url: str | os.PathLike[str]) -> Address:
    """Take an address apart and refuse what cannot be one. No message repeats a credential.

    Raises:
        ArgumentError: *url* is no address of a store.
    """
    text = os.fspath(url)
    if not isinstance(text, str):
        raise ArgumentError(f"expected an address as str or path, found {type(text).__name__}")
    if not text.strip():
        raise ArgumentError("the address is empty: name a folder, or e.g. 's3://bucket/prefix'")
    if "\0" in text:
        raise ArgumentError("the address has a NUL character in it: name a folder or a URL")
    match = None if isinstance(url, os.PathLike) or _is_drive(text) else _ADDRESS.fullmatch(text)
    if match is None:
        return Address("file", _local_path(text))
    protocol, rest = match[1].lower(), match[2]
    _check_credentials(protocol, rest)
    if "::" in text:
        raise ArgumentError(
            f"{protocol}://…: chained addresses ('::') are not taken, as caches and archives in "
            "between break what a store relies on; name the storage itself"
        )
    if protocol in {"file", "local"}:
        return Address("file", _path_of_file_url(text))
    if set(rest) & set("?#"):
        raise ArgumentError(
            f"{protocol}://…: an address ends before '?' and '#'; pass options as storage_options"
        )
    parts = [part for part in rest.split("/") if part]
    if {".", ".."} & set(parts) or "\\" in rest:
        raise ArgumentError(
            f"{protocol}://{rest}: '.', '..' and '\\' mean nothing there; leave them out"
        )
    if not parts and protocol != "memory":
        raise ArgumentError(f"{protocol}:// names no bucket: write {protocol}://bucket/prefix")
    return Address(protocol, "/".join(parts))


def _check_credentials(protocol: str, rest: str) -> None:
    """Refuse ``user:password@host``; ``container@account`` is how Azure names a place.

    Raises:
        ArgumentError: There is a user part in the address.
    """
    # Also where a password has a slash in it: nothing else in an address has an @ after a colon.
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if ":" in rest.partition("@")[0] and "@" in rest:
        at, user = "@", ":"
    if not at or (protocol in _AZURE and ":" not in user):
        return
    raise ArgumentError(
        f"{protocol}://…@…: an address must hold no credentials, as it is shown and recorded; take "
        "them out and set the environment, or pass storage_options={'key': …, 'secret': …}"
    )


def _filesystem_class(protocol: str) -> Any:
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError:
        raise MissingPackageError(
            f"{protocol}:// needs a package that is not installed: "
            f"pip install {_PACKAGES.get(protocol, 'it (fsspec lists the packages by protocol)')}"
        ) from None
    except ValueError:
        usual = ", ".join(f"{name}://" for name in ("s3", "gs", "az", "memory"))
        raise ArgumentError(
            f"{protocol}:// is no protocol that fsspec knows; name a folder, or an address that "
            f"begins with {usual} or another that fsspec has"
        ) from None


def _is_drive(text: str) -> bool:
    return bool(_DRIVE.match(text))


def _local_path(text: str) -> str:
    if _is_drive(text) and os.name != "nt":
        raise ArgumentError(f"{text!r} is a path of Windows: name a folder of this machine")
    protocol, colon, rest = text.partition(":")
    if colon and len(protocol) > 1 and protocol.lower() in known_implementations:
        hint = rest.lstrip("/")
        raise ArgumentError(
            f"{protocol}:… lacks the two slashes of an address: write "
            f"{protocol}://{_bucket(hint)}…, or './' before the name of a folder"
        )
    path = os.path.expanduser(text)  # noqa: PTH111 - Path's raises where there is no user
    if path.startswith("~"):
        raise ArgumentError(
            f"{text!r}: there is no such user; write './' before it if a folder is called so"
        )
    return os.path.abspath(path)  # noqa: PTH100 - takes ".." out, follows no link


def _bucket(rest: str) -> str:
    """What to repeat of a mistyped address: a bucket's name, never what may be a credential."""
    name = rest.partition("/")[0]
    return name if re.fullmatch(r"[a-z0-9.-]{3,63}", name) else ""


def _path_of_file_url(url: str) -> str:
    split = urlsplit(url)
    if split.netloc not in {"", "localhost"}:
        raise ArgumentError(
            f"file://{split.netloc}… names another machine, or lacks a slash: write file:///path"
        )
    if split.query or split.fragment:
        raise ArgumentError("file://…: write '?' as %3F and '#' as %23 in the address of a folder")
    return os.path.abspath(url2pathname(split.path) or "/")  # noqa: PTH100 - takes ".." out, follows no link
