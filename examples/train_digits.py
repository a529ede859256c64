"""Train on handwritten digits. Kill it whenever you like: the same command goes on from there.

::

    python -m examples.train_digits --store checkpoints
    python -m examples.train_digits --store s3://bucket/prefix
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from ckptstore import Store
from examples import digits
from examples.digits import SimpleNN

MODEL: dict[str, Any] = {"hidden": 128, "dropout": 0.2}
TRAINING: dict[str, Any] = {"lr": 2e-3, "batch_size": 16, "seed": 0}


def main(argv: Sequence[str] | None = None) -> None:
    """Train up to ``--epochs``, from wherever the run is."""
    options = _options().parse_args(argv)
    data = digits.load()

    torch.manual_seed(TRAINING["seed"])
    model = SimpleNN(**MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=TRAINING["lr"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)

    # What differs from one training to the next is recorded with every checkpoint.
    store = Store(options.store)
    run = store.run(options.run, model_config=MODEL, config=TRAINING)

    # Weights, optimizer, scheduler and random generators; nothing if the run is new.
    resumed = run.resume(model, optimizer, scheduler=scheduler)
    if resumed.checkpoint:
        print(f"resumed from {resumed.checkpoint.ref}")

    console = Console()
    epochs = range(resumed.next_epoch, options.epochs)
    for epoch in track(epochs, "training", console=console, disable=not console.is_terminal):
        train_loss = digits.train(model, optimizer, data.train, TRAINING["batch_size"])
        val_loss, val_acc = digits.validate(model, data.val)
        scheduler.step()
        saved = run.save(
            model,
            optimizer,
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_acc=val_acc,
            scheduler=scheduler,
        )
        print(
            f"epoch {epoch + 1:>2}/{options.epochs}  train_loss {train_loss:.4f}  "
            f"val_loss {val_loss:.4f}  val_acc {val_acc:.1%}  saved {saved.ref}",
            flush=True,
        )

    print(f"\n{run.history()}\n")
    print(f"best    {run.best()}")
    print(f"digest  {digits.digest(model)}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", default="checkpoints", help="a folder or an S3 URL")
    parser.add_argument("--run", default="digits", help="the run's name")
    parser.add_argument("--epochs", type=int, default=12, help="how many in all")
    return parser


if __name__ == "__main__":
    main()
