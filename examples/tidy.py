"""A training that tidies up after itself: kept, judged later, pruned, collected, checked.

The run keeps what is recorded with it. An evaluator judges what is left by images that the training
never saw, and a tag holds on to its choice. What nothing needs any more is retired, can be taken
back, and is deleted a week later.

::

    python -m examples.tidy checkpoints
"""

from __future__ import annotations

import sys

import torch

from ckptstore import Checkpoint, Keep, Store
from examples import digits
from examples.digits import SimpleNN

EPOCHS = 8
MODEL = {"hidden": 64}
KEEP = Keep(last=2, best=2, every_epochs=4)


def main(url: str = "checkpoints", *, epochs: int = EPOCHS) -> None:
    """Train, evaluate, tidy up and check."""
    store = Store(url)
    train(store, epochs)
    live = [entry.version for entry in store.history("tidy") if not entry.retired]
    print(f"{store.history('tidy')}\nkept of {epochs}: {live}\n")

    chosen = evaluate(store)
    store.tag(chosen, "prod")
    print(f"chosen  {chosen}\n")

    # What a stricter policy would retire, and why the rest stays: nothing happens yet.
    run = store.run("tidy")
    run.prune(Keep(last=1), dry_run=True)
    retired = run.prune(Keep(last=1)).retired
    if retired:
        print(f"\ntaken back  {store.undelete(f'tidy@{retired[0]}')}")

    # Nothing was retired for a week, so nothing is deleted yet. A cron job may say this every day.
    print(f"\n{store.collect()}\n")
    print(store.verify())


def train(store: Store, epochs: int) -> None:
    """Train; the run prunes itself after each save."""
    data = digits.load()
    run = store.run("tidy", model_config=MODEL, keep=KEEP)
    torch.manual_seed(0)
    model = SimpleNN(**MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
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


def evaluate(store: Store) -> Checkpoint:
    """Judge what is left by other images, as another machine may do any time later."""
    held_out = digits.load().held_out
    for entry in store.history("tidy"):
        if not entry.retired:
            _, accuracy = digits.validate(entry.load(SimpleNN, device="cpu"), held_out)
            entry.log(test_acc=accuracy)
    return store.best(run="tidy", metric="test_acc", mode="max")


if __name__ == "__main__":
    main(*sys.argv[1:])
