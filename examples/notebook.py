"""A notebook whose cells are run again and again: training goes on, nothing is done twice.

Each function is a cell. Running one again makes new classes, models and stores, as it does in a
notebook, and what was trained is still there.

::

    python -m examples.notebook checkpoints
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from ckptstore import History, Store
from examples import digits

Trained = tuple[nn.Module, int]


def define() -> type[nn.Module]:
    """Cell 1: the model, which is another class each time the cell runs."""

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(digits.PIXELS, width), nn.ReLU(), nn.Linear(width, 10)
            )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layers(images)
            return logits

    return Net


def train(store: Store, net: type[nn.Module], epochs: int) -> Trained:
    """Cell 2: up to *epochs*, from wherever the run is; returns how many that were, too."""
    data = digits.load()
    run = store.run("notebook", model_config={"width": 32})
    model = net(width=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    todo = range(run.resume(model, optimizer).next_epoch, epochs)
    for epoch in todo:
        digits.train(model, optimizer, data.train)
        val_loss, val_acc = digits.validate(model, data.val)
        run.save(model, optimizer, epoch=epoch, val_loss=val_loss, val_acc=val_acc)
    return model, len(todo)


def look(store: Store) -> History:
    """Cell 3: the last line of a cell, which a notebook shows as a table."""
    return store.history("notebook")


def use(store: Store, net: type[nn.Module]) -> float:
    """Cell 4: the best so far, as a class of this session."""
    model = store.load_best(net, run="notebook", device="cpu")
    return digits.validate(model, digits.load().held_out)[1]


def main(url: str = "checkpoints") -> None:
    """Run the cells, again with more epochs, and once more with nothing left to do."""
    for epochs in (2, 4, 4):
        store, net = Store(url), define()
        _, trained = train(store, net, epochs)
        accuracy = use(store, net)
        print(f"{look(store)}\ntrained {trained}, {accuracy:.1%} of the held-out images\n")
    print(f"as a notebook shows it: {look(Store(url))._repr_html_()[:60]}…")


if __name__ == "__main__":
    main(*sys.argv[1:])
