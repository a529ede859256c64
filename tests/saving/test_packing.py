"""Packs: plain safetensors files, aligned, split, streamed, and every tensor as it was."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import textwrap

import pytest
import safetensors
import safetensors.torch
import torch
from blake3 import blake3
from torch import nn
from uuid_utils.compat import uuid7

from ckptstore import Store
from ckptstore.errors import UnsupportedValueError
from ckptstore.format.layout import pack_key
from ckptstore.format.pack import CODES
from ckptstore.saving import packing
from ckptstore.saving.capture import capture
from ckptstore.saving.packing import pack_parts
from ckptstore.state import tensors as staging
from ckptstore.storage.local import LocalStorage
from tests.faults import Failing

DTYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype)} - {
        torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4,
    },
    key=str,
)  # fmt: skip


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://")


def pack(storage, state, **options):
    save = uuid7()
    packed = pack_parts(storage, save, capture({"model": state}), **options)
    return packed, [storage._path(pack_key(save, each.number)) for each in packed.packs]


def raw(tensor):
    if not tensor.numel():
        return b""
    rows = tensor.detach().resolve_conj().resolve_neg()
    size = tensor.dtype.itemsize
    rows = rows.view(torch.complex128 if size == 16 else staging.INTEGERS[size]).contiguous()
    return rows.numpy().tobytes()


def same(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert raw(one) == raw(other)


def test_a_models_pack_is_a_drop_in_model_safetensors(storage):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Embedding(5, 2))
    _, (path,) = pack(storage, net)
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        same(loaded[name], tensor)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Embedding(5, 2))
    other.load_state_dict(loaded)


def test_what_the_manifest_says_of_a_pack_is_so(storage):
    state = {
        "a": torch.arange(100.0),
        "b": torch.ones(3, 5).t(),
        "c": torch.ones(0),
        "d": torch.tensor(7),
    }
    packed, (path,) = pack(storage, state)
    data = path.read_bytes()
    (described,) = packed.packs
    assert described.size_bytes == len(data)
    (length,) = struct.unpack("<Q", data[:8])
    assert described.header_bytes == 8 + length
    assert described.header_bytes % 4096 == 0
    assert described.header_digest == blake3(data[: 8 + length]).hexdigest()
    tensors = json.loads(packed.lines[0])["tensors"]
    for tensor, own in zip(tensors, state.values(), strict=True):
        (chunk,) = tensor["chunks"]
        piece = data[chunk["start"] : chunk["start"] + chunk["length"]]
        assert piece == raw(own)
        assert chunk["blake3"] == blake3(piece).hexdigest()
        assert chunk["start"] % (64 if len(piece) % 64 == 0 else own.element_size()) == 0
    (info,) = packed.infos
    assert info.length == len(packed.lines[0])
    assert info.digest == blake3(packed.lines[0]).hexdigest()
    assert info.size_bytes == sum(len(raw(tensor)) for tensor in state.values())


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_of_torch_comes_back(store, storage, dtype):
    data = torch.arange(96, dtype=torch.uint8)
    whole = data.view(dtype)
    state = {"whole": whole, "none": torch.empty(0, 2, dtype=dtype)}
    state["turned"] = whole.view(2, -1).t()
    state["one"] = whole[1]
    _, (path,) = pack(storage, state)
    loaded = safetensors.torch.load_file(path)
    for name, tensor in state.items():
        if str(dtype).removeprefix("torch.") in CODES:
            same(loaded[name], tensor)
        else:
            assert loaded[name].dtype == torch.uint8
            assert loaded[name].shape == (*tensor.shape, dtype.itemsize)
            assert raw(loaded[name]) == raw(tensor)
    back = store.save(state, rng=False).state("model")
    for name, tensor in state.items():
        same(back[name], tensor)
        assert back[name].stride() == tensor.stride() or name == "one"


BASE = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32)
COMPLEX = torch.complex(BASE, -BASE)
VIEWS = {
    "rows": BASE.view(2, 3, 4, 5),
    "channels_last": BASE.view(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels_last_3d": BASE.view(1, 2, 3, 4, 5).to(memory_format=torch.channels_last_3d),
    "transposed": BASE.view(6, 20).t(),
    "permuted": BASE.view(2, 3, 4, 5).permute(3, 0, 2, 1),
    "sliced": BASE.view(6, 20)[1:5, 3:17:2],
    "row": BASE.view(6, 20)[2],
    "column": BASE.view(6, 20)[:, 2],
    "offset": BASE[7:],
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
    "expanded scalar": torch.tensor(3.0).expand(2, 2),
    "conjugate": COMPLEX.conj(),
    "conjugate, turned": COMPLEX.view(6, 20).conj().t(),
    "negative": COMPLEX.conj().imag,
    "diagonal": BASE.view(6, 20).diagonal(),
    "unfolded": BASE.unfold(0, 3, 1),
    "scalar": torch.tensor(3.5),
    "scalar view": BASE[5],
    "empty": torch.empty(0),
    "empty rows": torch.empty(3, 0, 2),
    "one of many": BASE[::7][3:4],
    "one of many turned": BASE.view(6, 20)[::3, ::5][1:, 2:3].t(),
    "of one": torch.ones(1, 1, 1),
    "one row of many": torch.ones(1, 7).t(),
    "bool": BASE > 3,
    "needs grad": torch.ones(3, 2).t().requires_grad_(),
}  # fmt: skip


@pytest.mark.parametrize("staging_bytes", [1, 16, 100, 16 * 2**20])
@pytest.mark.parametrize("max_pack_bytes", [1, 500, 2**31])
def test_every_view_is_written_as_rows(storage, monkeypatch, staging_bytes, max_pack_bytes):
    monkeypatch.setattr(staging, "STAGING_BYTES", staging_bytes)
    _, paths = pack(storage, VIEWS, max_pack_bytes=max_pack_bytes)
    loaded = {}
    for path in paths:
        loaded |= safetensors.torch.load_file(path)
    assert loaded.keys() == VIEWS.keys()
    for name, tensor in VIEWS.items():
        same(loaded[name], tensor.resolve_conj().resolve_neg())


def test_every_view_comes_back_as_it_was(store):
    back = store.save(VIEWS, rng=False).state("model")
    for name, tensor in VIEWS.items():
        same(back[name], tensor)
        assert back[name].requires_grad == tensor.requires_grad
    for name in ("channels_last", "channels_last_3d", "transposed", "permuted"):
        assert back[name].stride() == VIEWS[name].stride(), name
    assert back["channels_last"].is_contiguous(memory_format=torch.channels_last)
    pointers = [tensor.untyped_storage().data_ptr() for tensor in back.values() if tensor.numel()]
    assert len(set(pointers)) == len(pointers)


def test_a_tensor_larger_than_the_limit_has_a_pack_of_its_own(storage):
    state = {
        "a": torch.ones(10),
        "huge": torch.arange(1000.0),
        "b": torch.ones(10),
        "c": torch.ones(20),
    }
    packed, paths = pack(storage, state, max_pack_bytes=100)
    assert [sorted(safetensors.torch.load_file(path)) for path in paths] == [
        ["a"],
        ["huge"],
        ["b"],
        ["c"],
    ]
    assert [each.number for each in packed.packs] == [0, 1, 2, 3]


def test_a_version_in_many_packs_loads(store, monkeypatch):
    monkeypatch.setattr(packing.pack_parts, "__kwdefaults__", {"max_pack_bytes": 300})
    net = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    saved = store.save(net, extra={"x": torch.arange(200.0)}, rng=False, model_config={})
    assert len(saved.head.packs) > 3
    back = saved.state("model")
    assert all(torch.equal(back[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(saved.extra["x"], torch.arange(200.0))


def test_a_part_without_tensors_has_no_pack(storage):
    packed, paths = pack(storage, {"lr": 0.1})
    assert paths == []
    assert packed.packs == []
    assert not storage._path("packs").exists()


def test_tied_tensors_are_written_once(storage):
    weight = torch.arange(9000.0)
    _, (path,) = pack(storage, {"a": weight, "b": weight})
    assert path.stat().st_size < 2 * weight.nbytes
    assert list(safetensors.torch.load_file(path)) == ["a"]


def test_too_many_plain_values_are_refused_by_name(storage, monkeypatch):
    monkeypatch.setattr(packing, "MAX_LINE_BYTES", 1000)
    with pytest.raises(UnsupportedValueError, match="NumPy arrays") as raised:
        pack(storage, {"words": "x" * 1001})
    assert raised.value.path == "model"


def test_a_header_that_nobody_would_read_is_refused(storage, monkeypatch):
    monkeypatch.setattr(packing, "MAX_HEADER_BYTES", 8192)
    state = {f"{n:03}" + "x" * 200: torch.ones(1) for n in range(60)}
    with pytest.raises(UnsupportedValueError, match="header") as raised:
        pack(storage, state)
    assert raised.value.path == "model"
    assert not storage._path("packs").exists()


def test_a_failed_write_leaves_no_file(storage):
    for at in range(1, 5):
        with pytest.raises(OSError, match="broke"):
            pack(
                Failing(storage, at=at, only={"open_writer", "write", "finish"}),
                {"a": torch.ones(2**20)},
            )
        assert not list(storage._path("packs").rglob("*.safetensors"))


def test_large_tensors_are_handed_on_as_they_lie_in_memory(storage, monkeypatch):
    tensor = torch.ones(2**20)
    written = []

    class Spy:
        def __init__(self, writer):
            self.writer = writer

        def __enter__(self):
            self.writer.__enter__()
            return self

        def __exit__(self, *error):
            return self.writer.__exit__(*error)

        def write(self, data):
            written.append(torch.frombuffer(data, dtype=torch.uint8).data_ptr())
            self.writer.write(data)

    opened = storage.open_writer
    monkeypatch.setattr(storage, "open_writer", lambda key: Spy(opened(key)))
    pack(storage, {"a": tensor})
    assert tensor.data_ptr() in written


MEASURE = """
    import resource, sys, torch
    from ckptstore import Store
    state = {f"layer{n}.weight": torch.ones(25 * 2**20 // 4 * 2) for n in range(12)}  # 600 MiB
    state["turned"] = torch.ones(1024, 8192).t()
    state["half"] = torch.ones(2**22, 2)[:, 0]
    small = Store(sys.argv[1] + "/warm")
    small.save({"w": torch.ones(3)})
    def peak():
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmHWM"].split()[0]) * 1024, int(lines["VmRSS"].split()[0]) * 1024
    open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
    before = peak()[1]
    saved = Store(sys.argv[1] + "/store").save(state)
    assert saved.size_bytes > 600 * 2**20
    print(peak()[0] - before)
"""


def test_a_blocking_save_takes_little_memory_beside_the_state(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 64 * 2**20
