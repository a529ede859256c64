"""What made ``format-1``, the golden store of format 1, and what is in it.

The store is committed and never made again: whatever ckptstore becomes must go on reading these
bytes. So this file is run once for a format, by hand::

    python -m tests.data.make_format_1 tests/data/format-1

Values are counted out rather than drawn or computed, identifiers and times are numbered, and what
would tell of a machine is made up, so that the tests know what to expect without asking the store.
"""

from __future__ import annotations

import itertools
import random
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from ckptstore import Store
from ckptstore.format.digest import digest
from ckptstore.format.layout import pack_key, version_key
from ckptstore.format.manifest import Head, Pack, PartInfo, encode_manifest
from ckptstore.format.pack import Slot, plan
from ckptstore.format.part import Chunk, Part, Tensor, encode_part
from ckptstore.storage.local import LocalStorage

STORE_ID = uuid.UUID("00000000-0000-4000-8000-000000000001")
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
ENVIRONMENT = {
    "ckptstore": "0.1.0", "torch": "2.13.0", "python": "3.11.0", "platform": "Linux", "cuda": None,
    "gpus": [], "threads": 2, "deterministic": False, "cudnn_deterministic": False,
    "cudnn_benchmark": False, "tf32": False, "cudnn_tf32": True, "world_size": 1, "host": "golden",
    "git": {"commit": "0" * 40, "dirty": False}, "argv": ["train.py", "--lr", "0.1"],
}  # fmt: skip
CONFIG = {"lr": 0.1, "betas": (0.9, 0.999), "name": "größer ☃"}
DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32,
    torch.uint64, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
)  # fmt: skip


class Net(nn.Module):
    """A bit of everything: channels-last, tied, frozen, bfloat16, buffers of no dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 2)
        self.norm = nn.BatchNorm2d(width)
        self.embed = nn.Embedding(5, 3)
        self.decode = nn.Linear(3, 5, bias=False)
        self.decode.weight = self.embed.weight
        self.narrow = nn.Linear(3, 2, dtype=torch.bfloat16)
        self.narrow.weight.requires_grad = False


Net.__module__ = "golden"  # as a script it would be "__main__"


class Holder:
    """A part that is neither module nor optimizer."""

    def __init__(self, state: object) -> None:
        self.state = state

    def state_dict(self) -> object:
        return self.state


Holder.__module__ = "golden"


def counted(*shape: int, start: float = 0.0) -> torch.Tensor:
    """float32, every element exact: start, start + 1/8, start + 2/8, …"""
    total = int(np.prod(shape))
    return (torch.arange(total, dtype=torch.float32) / 8 + start).reshape(shape)


def net() -> Net:
    model = Net(4)
    for number, value in enumerate(model.state_dict().values()):
        value.copy_(counted(*value.shape, start=number))
    weight = model.conv.weight
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return model


def optimizer(model: Net) -> torch.optim.Optimizer:
    trained = [*model.conv.parameters(), model.embed.weight]
    made = torch.optim.AdamW([{"params": trained[:2]}, {"params": trained[2:], "lr": 0.5}], lr=0.25)
    for number, parameter in enumerate(trained):
        made.state[parameter] = {
            "step": torch.tensor(3.0),
            "exp_avg": counted(*parameter.shape, start=number + 0.5),
            "exp_avg_sq": counted(*parameter.shape, start=number + 0.25),
        }
    return made


def scheduler() -> Holder:
    return Holder({"last_epoch": 3, "_last_lr": [0.25, 0.5], "milestones": Counter({2: 1, 5: 3})})


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def seed() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the generator that training scripts use
    torch.manual_seed(1)


def extra() -> dict[str, object]:
    """Every kind of value a tree has, tensors and arrays in odd places among them."""
    tensor = counted(2, 3)
    ordered = OrderedDict(b=1, a=2)
    ordered._metadata = {"": {"version": 1}}  # type: ignore[attr-defined] # where torch keeps it
    return {
        "plain": [None, True, False, 0, -1, 2**53 - 1, 0.1, -0.0, 1e300, "", "größer ☃ \u0000 \n"],
        "big": [2**53, -(2**64), 10**40, 2**2000, -(2**2001)],
        "float": [float("nan"), float("inf"), float("-inf")],
        "complex": [1 + 2j, complex(float("inf"), -0.0)],
        "bytes": [b"", b"\x00\xff", bytearray(b"abc")],
        "list": [[], [[1]]],
        "tuple": ((), (1, (2,))),
        "set": [set(), {1, 2, 3}, frozenset({"a"})],
        "dict": {"$dollar": 1, 2: "int", (1, "b"): "tuple", None: "none", 1.5: "float"},
        "empty": {},
        "ordered": ordered,
        "counter": Counter({"b": 2, "a": 1}),
        "defaultdict": [defaultdict(list, {"a": [1]}), defaultdict(None, {"b": 2})],
        "deque": [deque([1, 2, 3], maxlen=5), deque([1])],
        "torch": [torch.Size([2, 3]), torch.float16, torch.device("cuda:1"), torch.strided,
                  torch.channels_last],
        "tensor": [tensor, nn.Parameter(counted(2, start=9)), tensor, tensor.t()],
        "array": [np.arange(6, dtype="<i2").reshape(2, 3), np.asfortranarray(np.eye(2)),
                  np.array(["ab", "c"]), np.zeros((0, 2)), np.array(4.5)],
        "scalar": [np.float32(1.5), np.int64(-7), np.bool_(1), np.str_("größer"), np.bytes_(b"ab")],
        "numpy.dtype": [np.dtype("<f8"), np.dtype("|u1")],
    }  # fmt: skip


def dtypes() -> OrderedDict[str, torch.Tensor]:
    """A tensor of each dtype, then odd shapes."""
    state = OrderedDict((str(dtype), _of_dtype(dtype)) for dtype in DTYPES)
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.empty(0, 3)
    state["one"] = torch.tensor([1], dtype=torch.uint8)
    state["wide"] = counted(1, 128)
    state["transposed"] = counted(3, 4).t()
    state["slice"] = counted(4, 6)[1:3, ::2]
    state["conjugate"] = torch.tensor([1 + 2j, 3 - 4j]).conj()
    state["../odd\tname"] = counted(2)
    return state


def newer_dtypes() -> Holder:
    """Dtypes that not every torch has that ckptstore runs on."""
    raw = torch.arange(1, 7, dtype=torch.uint8)
    return Holder(
        {"e8m0": raw.view(torch.float8_e8m0fnu), "e2m1": raw.view(torch.float4_e2m1fn_x2)}
    )


def sharded() -> torch.Tensor:
    """What stands in ``sharded@1`` as three chunks in two packs."""
    return counted(4, 6)


def _of_dtype(dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.tensor([True, False, True])
    if dtype.is_complex:
        return torch.tensor([1.5 - 2j, 0.25j, -3], dtype=dtype)
    return torch.tensor([0, 1, 2, 3, 64], dtype=torch.float32).to(dtype)


def make(folder: Path) -> None:
    numbers = itertools.count(1)

    def number() -> uuid.UUID:
        return uuid.UUID(f"01900000-0000-7000-8000-{next(numbers):012x}")

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # noqa: ARG003 - datetime's signature
            return STARTED + timedelta(seconds=next(numbers))

    with (
        mock.patch("ckptstore.saving.save.uuid7", number),
        mock.patch("ckptstore.saving.journaling.uuid7", number),
        mock.patch("uuid.uuid4", return_value=STORE_ID),
        mock.patch("ckptstore.saving.save.datetime", Clock),
        mock.patch("ckptstore.saving.journaling.datetime", Clock),
        mock.patch("ckptstore.saving.save.describe", return_value=ENVIRONMENT),
    ):
        _save(folder)
    _write_sharded(LocalStorage(folder), number())


def _save(folder: Path) -> None:
    store = Store(folder, catalog="sqlite://")
    digits = store.run(
        "digits", model_config={"width": 4}, config=CONFIG, monitor="accuracy", mode="max"
    )
    model = net()
    seed()
    digits.save(
        model, optimizer(model), epoch=0, step=10, scheduler=scheduler(), shuffling=generator(),
        extra=extra(), accuracy=0.5, loss=float("nan"), gap=float("inf"), seen=2**60,
    )  # fmt: skip
    second = digits.save(
        model.state_dict(), epoch=1, rng=False, accuracy=0.75, loss=0.125, tags=["candidate", "old"]
    )
    store.save_package(
        second,
        preprocessing={"mean": [0.0, 0.5, 1.0], "std": [1.0, 2.0, 4.0]},
        class_names=["zero", "one", 2, "größer", "4"],
        tags=["prod"],
    )
    store.tag("digits@1", "old")
    store.untag("candidate", run="digits")
    store.save(dtypes(), newer=newer_dtypes(), run="Sweep/lr=0.1", rng=False)


def _write_sharded(storage: LocalStorage, save_id: uuid.UUID) -> None:
    """Write what a sharded training is to write one day, and every reader reads from the first."""
    whole = sharded()
    boxes = [((0, 0), (2, 6), 0), ((2, 0), (2, 3), 0), ((2, 3), (2, 3), 1)]
    packs, chunks = [], []
    for number in (0, 1):
        mine = [(offsets, shape) for offsets, shape, pack in boxes if pack == number]
        pieces = [
            whole[a : a + n, b : b + m].contiguous().numpy().tobytes() for (a, b), (n, m) in mine
        ]
        layout = plan(
            [
                Slot(str(index), "float32", shape, 4, len(piece))
                for index, ((_, shape), piece) in enumerate(zip(mine, pieces, strict=True))
            ]
        )
        with storage.open_writer(pack_key(save_id, number)) as writer:
            writer.write(memoryview(layout.header))
            for index in layout.order:
                writer.write(memoryview(pieces[index]))
        packs.append(
            Pack(save_id, number, layout.size_bytes, len(layout.header), digest(layout.header))
        )
        chunks += [
            Chunk(offsets, shape, number, layout.starts[index], len(piece), digest(piece))
            for index, ((offsets, shape), piece) in enumerate(zip(mine, pieces, strict=True))
        ]
    tensor = Tensor("float32", 4, (4, 6), None, requires_grad=True, chunks=tuple(chunks))
    line = encode_part(Part({"w": {"$tensor": 0}}, (tensor,)))
    head = Head(
        save_id, "sharded", 1, "checkpoint", STARTED, STARTED, environment=ENVIRONMENT, packs=packs,
        parts=[PartInfo("model", "state_dict", 96, len(line), digest(line))],
    )  # fmt: skip
    storage.create(version_key("sharded", 1), encode_manifest(head, [line]))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
