"""Write what retention decides as golden files, to be read through before they are committed.

Run it as ``python -m tests.upkeep.make_golden``, then look at ``git diff tests/upkeep/golden``.
"""

from __future__ import annotations

from pathlib import Path

from tests.upkeep.pasts import KEEPS, PASTS, TRIED, pruned

GOLDEN = Path(__file__).with_name("golden")


def golden(past: str, keep: str) -> str:
    """What a golden file says."""
    return f"{KEEPS[keep]!r}\n\n{pruned(PASTS[past], KEEPS[keep])}\n"


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for file in GOLDEN.glob("*.txt"):
        file.unlink()
    for past, keep in TRIED:
        (GOLDEN / f"{past}--{keep}.txt").write_text(golden(past, keep), encoding="utf-8")


if __name__ == "__main__":
    main()
