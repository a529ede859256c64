"""DistributedDataParallel: rank 0 saves, all ranks resume, and all end with the same bits.

::

    python -m examples.ddp checkpoints
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ckptstore import Store
from examples import digits
from examples.digits import SimpleNN

EPOCHS = 3
RANKS = 2
MODEL = {"hidden": 32}


def main(url: str = "checkpoints", *, epochs: int = EPOCHS) -> None:
    """Train on two processes of this machine, which talk by gloo."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        spawn(work, (url, epochs, meeting), nprocs=RANKS)


def work(rank: int, url: str, epochs: int, meeting: str) -> None:
    """Be one rank: join the others, train, and part."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    print(f"digest on rank {rank}  {train(Store(url), epochs)}")
    # By now the wrapped model is gone. One that outlives its group, or a rank that leaves before
    # the others are through, can leave a process waiting for ever (seen with gloo, torch 2.13).
    distributed.barrier()
    distributed.destroy_process_group()


def train(store: Store, epochs: int) -> str:
    """Train up to *epochs* and return the digest of this rank's weights."""
    data = digits.load()
    images = TensorDataset(data.train.images, data.train.labels)
    sampler = DistributedSampler[Any](images, seed=0)

    # Whatever weights a rank begins with, it gets rank 0's, or those of resume().
    torch.manual_seed(distributed.get_rank())
    model = DistributedDataParallel(SimpleNN(**MODEL))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    run = store.run("ddp", model_config=MODEL)

    # Collective: rank 0 picks the version, and all restore it or none.
    resumed = run.resume(model, optimizer)
    for epoch in range(resumed.next_epoch, epochs):
        sampler.set_epoch(epoch)
        model.train()
        for batch, labels in DataLoader(images, batch_size=16, sampler=sampler):
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), labels).backward()
            optimizer.step()
        val_loss, val_acc = digits.validate(model, data.val)
        if distributed.get_rank() == 0:
            # The wrapper is looked through: SimpleNN's own names are saved.
            print(run.save(model, optimizer, epoch=epoch, val_loss=val_loss, val_acc=val_acc))
    return digits.digest(model.module)


if __name__ == "__main__":
    main(*sys.argv[1:])
