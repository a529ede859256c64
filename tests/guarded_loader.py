"""A training under a guard whose batches come from workers, as a process of its own.

Usage: python -m tests.guarded_loader FOLDER (fork | spawn)
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from ckptstore import Store, leave_to_guard


class Slow(Dataset[torch.Tensor]):
    """Rows that take a while, so that a signal finds workers at work."""

    def __len__(self) -> int:
        return 20_000

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.01)
        return torch.full((4,), float(index))


def main(folder: Path, how: str) -> None:
    """Train until told to stop."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    loader = DataLoader(
        Slow(),
        batch_size=4,
        num_workers=2,
        persistent_workers=True,  # such ones are ended by a signal of their process
        multiprocessing_context=how,
        worker_init_fn=leave_to_guard if how == "spawn" else None,
    )
    run = Store(folder / "store", catalog="sqlite://").run("digits")
    with run.guard(deadline=timedelta(minutes=1)) as guard:
        for step, batch in enumerate(loader):
            model(batch).sum().backward()
            optimizer.step()
            if step == 3:
                print("training", flush=True)  # noqa: T201 - the test reads it
            guard.step(model, optimizer, step=step)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
