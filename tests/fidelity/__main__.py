"""``python -m tests.fidelity``: every case, and the page of what was checked."""

from __future__ import annotations

import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from tests.fidelity import page


def main() -> int:
    """Run all cases. The page is written if none fails."""
    checked: dict[str, list[str]] = {}
    warnings.simplefilter("error")  # as the tests have it
    for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", kind)
    failed = 0
    for case in page.CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                checked[case.title] = case.run(Path(folder))
            except Exception:  # noqa: BLE001 - whatever it is, the other cases are run too
                failed += 1
                sys.stderr.write(f"{case.title}:\n{traceback.format_exc()}\n")
    if failed:
        sys.stderr.write(f"{failed} of {len(page.CASES)} failed; the page is as it was\n")
        return 1
    page.PAGE.write_text(page.written(checked))
    sys.stdout.write(f"{len(checked)} cases; wrote {page.PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
