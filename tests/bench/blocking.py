"""Blocking savers, ckptstore's and the peers': what they saved would survive a power loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from . import state
from .savers import Ours, Saver


class OursBlocking(Ours):
    """`save`: returns when it is durable."""

    def save(self) -> None:
        self.store.save(self.model, self.optimizer, epoch=1, val_loss=0.5, model_config={})


class TorchSave(Saver):
    """torch.save, blocking."""

    note = "`torch.save`, then fsync of the file and its folder"

    def save(self) -> None:
        place = self.place()
        torch.save(state.everything(self.model, self.optimizer), place)
        state.fsync(place)


class Flat(Saver):
    """One that saves tensors by name."""

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any) -> None:
        super().__init__(folder, model, optimizer)
        self.tensors = state.flat(model, optimizer)


class Plain(Flat):
    """The limit: the bytes, one tensor after the other, into one file."""

    def save(self) -> None:
        place = self.place()
        with place.open("wb", buffering=0) as file:
            for tensor in self.tensors.values():
                left = tensor.view(-1).view(torch.uint8).numpy().data
                while left:  # one call writes at most 2 GiB
                    left = left[file.write(left) :]
        state.fsync(place)


class Safetensors(Flat):
    """safetensors' save_file."""

    note = "`save_file`, then fsync of the file and its folder"

    def save(self) -> None:
        place = self.place()
        save_file(self.tensors, place)
        state.fsync(place)


class Tensorizer(Flat):
    """tensorizer's serializer."""

    note = "`write_state_dict`, then fsync; it makes a CRC-32 and a SHA-256 of each tensor too"

    def save(self) -> None:
        from tensorizer import TensorSerializer

        place = self.place()
        serializer = TensorSerializer(str(place))
        serializer.write_state_dict(self.tensors)
        serializer.close()
        state.fsync(place)


class DcpSync(Saver):
    """dcp.save."""

    note = "as documented; it fsyncs its files itself, we its folder"
    threads: ClassVar[int] = 1

    def save(self) -> None:
        place = self.place()
        dcp_save(
            state.everything(self.model, self.optimizer),
            storage_writer=FileSystemWriter(place, thread_count=self.threads),
            no_dist=True,
        )
        state.fsync(place)


class DcpTwo(DcpSync):
    """dcp.save with as many threads as the bench's machines have cores."""

    note = "`FileSystemWriter(thread_count=2)`"
    threads = 2


OURS = "ckptstore"
PLAIN = "write + fsync of the same bytes"
TORCH = "torch.save + fsync"
ALL: dict[str, type[Saver]] = {
    OURS: OursBlocking,
    PLAIN: Plain,
    TORCH: TorchSave,
    "safetensors + fsync": Safetensors,
    "DCP, one thread": DcpSync,
    "DCP, two threads": DcpTwo,
    "tensorizer + fsync": Tensorizer,
}
