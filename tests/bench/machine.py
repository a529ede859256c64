"""What a section says of the machine and of the versions that it was measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALWAYS = ("torch", "numpy", "safetensors", "blake3", "sqlalchemy")


def described(packages: Iterable[str], folder: Path) -> str:
    """Return one paragraph: Python, packages, processor, cores, memory, filesystem.

    Args:
        packages: Whose versions to tell; those that aren't installed are left out.
        folder: A folder on the filesystem to name.
    """
    versions = [f"{name} {found}" for name in (*ALWAYS, *packages) if (found := installed(name))]
    memory = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Python {platform.python_version()}, {', '.join(versions)}; {os.cpu_count()} cores "
        f"({processor()}), {memory:.0f} GiB of memory, {filesystem(folder)}, "
        f"{platform.system()} {platform.machine()}."
    )


def installed(package: str) -> str | None:
    """Return a package's version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name as Linux tells it, elsewhere as Python does."""
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        facts = ""
    names = [line.partition(":")[2].strip() for line in facts.splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or "unknown processor"


def filesystem(folder: Path) -> str:
    """Return the kind of filesystem that *folder* lies on, as Linux names it."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown filesystem"
    place = folder.resolve()
    kinds = [
        (len(point), kind)
        for _, point, kind, *_ in map(str.split, mounts)
        if place.is_relative_to(point)
    ]
    return max(kinds)[1] if kinds else "unknown filesystem"
