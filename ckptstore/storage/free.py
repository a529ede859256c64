"""How much room there is where a store lies."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_bytes(folder: str | None) -> int | None:
    """Return how many bytes this user can still write to a folder's filesystem.

    As ``statvfs`` has it: without what is reserved for root, and with the quotas that a filesystem
    shows as its size (projects of XFS, datasets of ZFS, folders of CephFS). Quotas by user or group
    are not seen. A compressing filesystem takes more than it says.

    Args:
        folder: A path on this machine; what is not there yet is looked for above. None is a place
            elsewhere, as a bucket is.

    Returns:
        The number of bytes, None where nobody can tell.
    """
    if folder is None:
        return None
    path = Path(folder)
    for each in (path, *path.parents):
        try:
            return shutil.disk_usage(each).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
