"""``python -m tests.prove.bytes``: each byte of a small store changed, each file cut short."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.prove.bytes.damage import (
    EVERY_BIT,
    PATTERNS,
    Figures,
    cuts,
    decode_each,
    everything,
    files_of,
    flips,
    judge,
    make,
    reads,
)


def main() -> int:
    """Print a table; return 1 if any damage was neither found nor harmless."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.bytes")
    parser.add_argument("--every", type=int, default=1, help="load with every n-th byte changed")
    options = parser.parse_args()
    began, violations = time.monotonic(), []
    _out(f"{'':46}{'cases':>10}{'found':>10}{'harmless':>10}")
    with tempfile.TemporaryDirectory(prefix="bytes-") as name:
        folder = Path(name) / "store"
        make(folder)
        whole = everything(folder)
        for path in files_of(folder):
            shown, data = path.name[-24:], path.read_bytes()
            figures = Figures()
            for changed in (flips(data, EVERY_BIT), flips(data, PATTERNS), cuts(data)):
                decode_each(reads(folder, path), data, changed, figures)
            _row(f"{shown}, decoded", figures)
            figures = Figures()
            for changed in _loads(data, options.every):
                try:
                    found = judge(folder, path, changed, whole)
                except Exception as error:  # noqa: BLE001 - anything is a violation, and the rest goes on
                    violations.append(f"{shown}: {error!r}")
                    continue
                figures.found += found
                figures.harmless += not found
            _row(f"{shown}, loaded", figures)
    for violation in violations[:20]:
        _out(f"\nVIOLATION {violation}")
    _out(f"\n{len(violations)} violations in {time.monotonic() - began:.0f} s")
    return 1 if violations else 0


def _loads(data: bytes, every: int) -> Iterator[bytes]:
    yield from flips(data, PATTERNS[:1], every)
    yield from cuts(data, every)


def _row(what: str, figures: Figures) -> None:
    _out(f"{what:46}{figures.cases:>10,}{figures.found:>10,}{figures.harmless:>10,}")


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
