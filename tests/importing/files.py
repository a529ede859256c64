"""Files of other tools: a small training, and what would do harm if it were run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from ckptstore.importing.unpickling import LEGACY_MAGIC


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, 2)

    def forward(self, samples):
        return self.last(torch.relu(self.norm(self.first(samples))))


def trained(width=4, steps=3):
    """A module, an optimizer and a scheduler that have state."""
    torch.manual_seed(width)
    model = Net(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def full(width=4, **more):
    """A checkpoint dict with the usual keys."""
    model, optimizer, scheduler = trained(width)
    return {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "train_loss": 0.5,
        "val_loss": torch.tensor(0.25),
        "model_config": {"width": width},
        **more,
    }


def same(one, other):
    """Whether two states are the same values, bit for bit; tensors in one stride order too."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
            and one.contiguous().view(-1).view(torch.uint8).tolist()
            == other.contiguous().view(-1).view(torch.uint8).tolist()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class Runs:
    """Pickled as a call."""

    def __init__(self, function, *args):
        self._call = function, args

    def __reduce__(self):
        return self._call


def evil(canary: Path):
    """Values whose pickles make the file *canary* when they are run, by what they call."""
    touch = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": Runs(os.system, touch),
        "builtins.eval": Runs(eval, code),
        "builtins.exec": Runs(exec, code),
        "nested": {"model": OrderedDict(w=torch.ones(2)), "deep": [(Runs(os.system, touch),)]},
        "os.makedirs": Runs(os.makedirs, str(canary)),
        "subprocess.call": Runs(__import__("subprocess").call, ["touch", str(canary)]),
    }


def torch_zip(data: bytes, **storages: bytes) -> bytes:
    """A file as torch.save writes it, around a pickle of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        for name, content in storages.items():
            archive.writestr(f"archive/data/{name}", content)
        archive.writestr("archive/version", b"3\n")
    return file.getvalue()


def legacy(data: bytes) -> bytes:
    """A file as torch.save wrote it before 1.6, around a pickle of one's own."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    return b"".join(
        [
            b"\x80\x02" + LEGACY_MAGIC,
            pickle.dumps(1001, 2),
            pickle.dumps(system, 2),
            data,
            pickle.dumps([], 2),
        ]
    )
