"""Pickles that were made to harm, read in a process of their own: one that ends it is told so."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from tests.importing.files import torch_zip

READ = """
import sys, resource
from pathlib import Path
import torch
from ckptstore.errors import ImportRefusedError
from ckptstore.importing.plain import to_plain
from ckptstore.importing.unpickling import load_restricted
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
for path in map(Path, sys.argv[1:]):
    try:
        to_plain(load_restricted(path, "it"), "it")
        print(path.name, "read")
    except ImportRefusedError:
        print(path.name, "refused")
"""


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def several(*items):
    return b"(" + b"".join(items) + b"t"


def call(name, *args):
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode() + several(*args) + b"R"


def storage(count):
    name = b"ctorch\nFloatStorage\n"
    return several(text("storage"), name, text("0"), text("cpu"), number(count)) + b"Q"


def tensor(count, size, stride=1, offset=0):
    place = number(offset), several(number(size)), several(number(stride))
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", storage(count), *place, b"\x89", hooks)


def dtype(code, inner=b"N", size=8, flags=0):
    state = several(number(3), text("<"), inner, b"N", b"N", number(size), number(1), number(flags))
    return call("numpy.dtype", text(code), b"\x89", b"\x88") + state + b"b"


OBJECTS = several(call("numpy.dtype", text("O")), several(number(1)))
BYTES = call("_codecs.encode", text("A" * 32), text("latin1"))
HOSTILE = {
    "pointers": call("numpy.ndarray", several(number(4)), dtype("f8", OBJECTS), BYTES),
    "fields": call("numpy.core.multiarray.scalar", dtype("f8", OBJECTS), BYTES),
    "sized": call("numpy.core.multiarray.scalar", dtype("S4", size=-8), BYTES),
    "flags": call("numpy.core.multiarray.scalar", dtype("f8", flags=63), BYTES),
    "strides": call("numpy.ndarray", several(number(2**32)), text("i1"), BYTES),
    "key": b"}" + b")" + b"\x85" * 300_000 + number(1) + b"s",
    "doubled": b"}" + b")" + b"2\x86" * 40 + number(1) + b"s",
    "kept": call("builtins.set", b"]" + b")" + b"2\x86" * 40 + b"a"),
    "bytearray": call("builtins.bytearray", number(2**34)),
    "unfilled": call("torch.FloatTensor", number(1000)),
    "storage": call("torch.storage.UntypedStorage", number(2**34)),
    "longer": tensor(10**6, 10**6),
    "beyond": tensor(4, 5),
    "before": tensor(4, 2, offset=-3),
    "codec": call("_codecs.encode", text("x"), text("nosuch")),
    "attribute": call("collections.OrderedDict") + b"}" + text("items") + number(3) + b"sb",
    "bits": call("torch.Size", several(text("x"))),
    "itself": b"]q\x00h\x00a",
}


def test_hostile_files_are_refused_and_end_nothing(tmp_path):
    paths = []
    for name, body in {**HOSTILE, "good": b"}" + text("w") + tensor(4, 4) + b"s"}.items():
        (tmp_path / name).write_bytes(torch_zip(b"\x80\x02" + body + b".", **{"0": b"\0" * 16}))
        paths.append(str(tmp_path / name))
    ran = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = dict(line.split() for line in ran.stdout.splitlines())
    assert said == {**dict.fromkeys(HOSTILE, "refused"), "good": "read"}


@pytest.mark.parametrize("weight", ["\x8f", "]"])
def test_more_values_than_a_checkpoint_has_are_refused(tmp_path, weight, monkeypatch):
    from ckptstore.errors import ImportRefusedError
    from ckptstore.importing.unpickling import load_restricted

    monkeypatch.setattr("ckptstore.importing.inert.MAX_MADE", 1000)
    body = b"\x80\x04(" + weight.encode("latin-1") * 1001 + b"l."
    (tmp_path / "x").write_bytes(torch_zip(body))
    with pytest.raises(ImportRefusedError, match="more values"):
        load_restricted(tmp_path / "x", "x")
