"""The page that says what goes on bit for bit: a row for each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tests.docs.pages import ROOT
from tests.fidelity import data, optimizers, others, schedulers, wrappers
from tests.fidelity.cases import Case
from tests.fidelity.training import STEPS

PAGE = ROOT / "docs" / "reference" / "fidelity.md"
CASES = [*optimizers.CASES, *schedulers.CASES, *others.CASES, *wrappers.CASES, *data.CASES]
# The kinds that have a title of their own; of others it is the kind, in the plural.
TITLES = {"scheduler": "Learning rate schedulers", "other": "Other state", "data": "Data"}
START = f"""\
# What goes on bit for bit

<!-- Made by `python -m tests.fidelity`, which runs every row. -->

Each row is a training of {STEPS} steps that is saved before each step, and gone on with from each
of these versions in objects built afresh, from another seed. What was checked is the same, in every
bit and after every later step, as in the training that was never cut; *audit* says that a script
with other hyperparameters was told exactly those that the checkpoint overrode.

`capturable=True` runs on a CPU, with torch's check for an accelerator passed over.

What a plain function closes over can't be seen: a `LambdaLR` whose function changes a variable as
the training goes does not go on exactly. One that calls an object with attributes does: they are
saved ([what to do](../how-to/full-checkpoint.md)).

Last run in full with torch {{torch}}.
"""


def written(checked: Mapping[str, Sequence[str]], version: str = torch.__version__) -> str:
    """The page.

    Args:
        checked: What was checked of each case, by its title.
        version: The torch it was checked with.
    """
    pieces = [START.replace("{torch}", version)]
    for kind in dict.fromkeys(case.kind for case in CASES):
        rows = [row(case, checked[case.title]) for case in CASES if case.kind == kind]
        title = TITLES.get(kind, f"{kind.capitalize()}s")
        head = ["## " + title, "", "| what | option | checked |", "| --- | --- | --- |"]
        pieces.append("\n".join([*head, *rows, ""]))
    return "\n".join(pieces)


def row(case: Case, checked: Sequence[str]) -> str:
    """The line of a case."""
    cells = (case.name, case.option, ", ".join(checked))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
