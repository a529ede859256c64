"""Package a run's best version, load it as a server would, and read images it has never seen.

::

    python -m examples.serve_digits --store checkpoints
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ckptstore import Store
from examples import digits
from examples.digits import CLASS_NAMES, SimpleNN

SHOWN = 7
INK = 6  # of 16: pixels at least this dark are drawn


def main(argv: Sequence[str] | None = None) -> None:
    """Package, load, predict."""
    options = _options().parse_args(argv)
    data = digits.load()
    store = Store(options.store)

    # A lean version without the optimizer, with all that turns raw pixels into a name.
    best = store.best(run=options.run)
    packaged = store.save_package(
        best,
        preprocessing={"mean": data.mean, "std": data.std},
        class_names=CLASS_NAMES,
        tags=["prod"],
    )
    print(
        f"packaged {best.ref} as {packaged.ref}, tagged prod: "
        f"{packaged.size_bytes:,} bytes instead of {best.size_bytes:,}"
    )

    # A server needs no more than this.
    served = store.load_package(SimpleNN, f"{options.run}@prod", device="cpu")
    answers = served.predict(data.held_out.pixels)

    truth = [CLASS_NAMES[label] for label in data.held_out.labels]
    right = sum(answer == name for answer, name in zip(answers, truth, strict=True))
    print(f"accuracy {right / len(truth):.1%} of {len(truth)} held-out images\n")
    print(_gallery(data.held_out.pixels[:SHOWN], answers[:SHOWN]))


def _gallery(pixels: NDArray[np.float64], names: Sequence[str]) -> str:
    """Draw images side by side, two rows of pixels a line, each above what it was read as."""
    ink = pixels.reshape(-1, 4, 2, 8) >= INK
    blocks = np.array(list(" ▄▀█"))[ink[:, :, 0] * 2 + ink[:, :, 1]]
    lines = ["   ".join("".join(image[line]) for image in blocks) for line in range(4)]
    return "\n".join([*lines, "   ".join(name.center(8) for name in names)])


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", default="checkpoints", help="a folder or an S3 URL")
    parser.add_argument("--run", default="digits", help="the run's name")
    return parser


if __name__ == "__main__":
    main()
