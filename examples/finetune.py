"""Fine-tuning: a new head on a frozen backbone that another run has trained.

A network learns the digits 0 to 4; its backbone, untouched, then serves to tell 5 to 9 apart.

::

    python -m examples.finetune checkpoints
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from ckptstore import Checkpoint, Store
from examples import digits
from examples.digits import SimpleNN

EPOCHS = 4
MODEL = {"hidden": 64, "classes": 5}


def main(url: str = "checkpoints", *, epochs: int = EPOCHS) -> None:
    """Train a base, then a head on top of it."""
    store = Store(url)
    base = train_base(store, epochs)
    best = fine_tune(store, base, epochs)

    history = store.history("fine")
    print(f"{history}\n{history[0].ref} came from {history[0].parent}")
    model = best.load(SimpleNN, device="cpu")
    _, accuracy = digits.validate(model, digits.load().held_out.only(5, 9))
    print(f"accuracy {accuracy:.1%} of the held-out images of 5 to 9")


def train_base(store: Store, epochs: int) -> Checkpoint:
    """Learn the digits 0 to 4."""
    data = digits.load()
    run = store.run("base", model_config=MODEL)
    torch.manual_seed(0)
    model = SimpleNN(**MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(run.resume(model, optimizer).next_epoch, epochs):
        digits.train(model, optimizer, data.train.only(0, 4))
        val_loss, val_acc = digits.validate(model, data.val.only(0, 4))
        run.save(model, optimizer, epoch=epoch, val_loss=val_loss, val_acc=val_acc)
    return run.best()


def fine_tune(store: Store, base: Checkpoint, epochs: int) -> Checkpoint:
    """Learn the digits 5 to 9 with a new head; only its weights have an optimizer."""
    data = digits.load()
    run = store.run("fine", model_config=MODEL)
    model = base.load(SimpleNN, device="cpu").requires_grad_(requires_grad=False)
    torch.manual_seed(1)
    model.head = nn.Linear(MODEL["hidden"], MODEL["classes"])
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-2)
    resumed = run.resume(model, optimizer)
    for epoch in range(resumed.next_epoch, epochs):
        digits.train(model, optimizer, data.train.only(5, 9))
        val_loss, val_acc = digits.validate(model, data.val.only(5, 9))
        run.save(
            model,
            optimizer,
            epoch=epoch,
            val_loss=val_loss,
            val_acc=val_acc,
            parent=None if epoch else base,  # later ones come from the one before
        )
    return run.best()


if __name__ == "__main__":
    main(*sys.argv[1:])
