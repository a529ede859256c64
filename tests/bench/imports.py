"""What an import takes."""

from __future__ import annotations

import json
import subprocess
import sys

from .questions import Question, Target

OURS = "import ckptstore"
STORE = "from ckptstore import Store"


def imports(rounds: int) -> Question:
    """Time imports, each in a process of its own."""
    names = [OURS, STORE, "import safetensors", "import sqlalchemy", "import torch"]
    measured: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            seconds = imported(name)
            if number:
                measured[name].append(seconds)
    return Question(
        key="imports",
        title="Import",
        asks="What an import takes in a process that has imported nothing yet.",
        measured=measured,
        ours=(OURS, STORE),
        notes={STORE: "the first use of a name imports what it needs, torch and SQLAlchemy too"},
        targets=(Target(OURS, 0.1),),
    )


def imported(statement: str) -> float:
    """Return the seconds that an import takes in a fresh process."""
    code = (
        "import time, json; start = time.perf_counter(); "
        f"{statement}; print(json.dumps(time.perf_counter() - start))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))
