"""A sweep: one run a setting, compared over a glob.

::

    python -m examples.sweep checkpoints
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from ckptstore import Checkpoint, Store
from examples import digits
from examples.digits import SimpleNN

EPOCHS = 3
RATES = (1e-4, 1e-3, 1e-2)
MODEL = {"hidden": 32}


def main(url: str = "checkpoints", *, epochs: int = EPOCHS, rates: Sequence[float] = RATES) -> None:
    """Train with each learning rate and pick the best of all."""
    store = Store(url)
    for rate in rates:
        train(store, rate, epochs)

    print(store.history("sweep/*"))
    best = store.best(run="sweep/*")
    print(f"best    {best}, trained with {best.config}")

    # The same by a metric that no run was watching.
    surest = store.best(run="sweep/*", metric="val_acc", mode="max")
    model = store.load(SimpleNN, surest.ref, device="cpu")
    _, accuracy = digits.validate(model, digits.load().held_out)
    print(f"surest  {surest.ref}: {accuracy:.1%} of the held-out images")


def train(store: Store, rate: float, epochs: int) -> Checkpoint:
    """Train one setting; a sweep that was interrupted trains what is missing."""
    data = digits.load()
    run = store.run(f"sweep/lr={rate:g}", model_config=MODEL, config={"lr": rate})
    torch.manual_seed(0)
    model = SimpleNN(**MODEL)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for epoch in range(run.resume(model, optimizer).next_epoch, epochs):
        train_loss = digits.train(model, optimizer, data.train)
        val_loss, val_acc = digits.validate(model, data.val)
        run.save(
            model,
            optimizer,
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_acc=val_acc,
        )
    return run.best()


if __name__ == "__main__":
    main(*sys.argv[1:])
