"""A program's file: what is written is read, and whatever a hostile one says is refused."""

from __future__ import annotations

import json

import pytest
import torch

from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.programs.document import ALIGNMENT, decode_program, encode_program
from ckptstore.programs.weights import tensors_of
from tests.programs import nets
from tests.programs.nets import export, program_of

SAMPLE = {"args": (torch.randn(4, 1, 8, 8),)}


def changed(data, change):
    """Return a program's file with its line changed."""
    line, _, rest = bytes(data).partition(b"\n")
    fields = json.loads(line)
    change(fields)
    text = json.dumps(fields).encode()
    return memoryview(text + b" " * (-(len(text) + 1) % ALIGNMENT) + b"\n" + rest)


def test_a_program_comes_back_from_its_file():
    program = program_of(nets.Net(), SAMPLE)
    constants = {
        place: bytes(each.size_bytes) for place, each in enumerate(program.held) if each.key is None
    }
    data = memoryview(b"".join(encode_program(program, constants)))
    assert decode_program(data, "a program") == program


def test_tensors_in_the_file_begin_at_multiples_of_64():
    module = nets.Net()
    data = export(module, SAMPLE)
    program = decode_program(data, "a program")
    own = [each for each in program.held if each.key is None]
    assert len(own) == 2
    assert all(each.start % ALIGNMENT == 0 for each in own)
    device = torch.device("cpu")
    tensors = tensors_of(program, data, module.state_dict(), device=device, where="a program")
    found = [tensors[place] for place, each in enumerate(program.held) if each.key is None]
    assert any(torch.equal(each, module.table) for each in found)
    assert any(torch.equal(each, module.scale) for each in found)


def test_the_same_module_makes_the_same_file_again():
    module = nets.Attention()
    first = bytes(export(module, torch.ones(2, 6, dtype=torch.long)))
    with torch.no_grad():
        module.embed.weight.add_(1)
    assert bytes(export(module, torch.ones(3, 6, dtype=torch.long))) == first


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(fields):
        for key in path:
            fields = fields[key]
        fields[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("program", "1"),
        put("torch", 3),
        put("device", "nowhere"),
        put("exact", "yes"),
        put("tensors", {}),
        put("tensors", 0, "dtype", 7),
        put("tensors", 0, "itemsize", 0),
        put("tensors", 0, "itemsize", 2**40),
        put("tensors", 0, "shape", [2**40, 2**40]),
        put("tensors", 0, "shape", [1] * 65),
        put("tensors", 0, "shape", [-1]),
        put("tensors", 0, "key", 5),
        put("tensors", 0, {"dtype": "float32", "itemsize": 4, "shape": [10**6], "start": 0}),
        put("tensors", 0, {"dtype": "float32", "itemsize": 4, "shape": [1], "start": 2**50}),
        put("inputs", []),
        put("inputs", 0, "kind", "module"),
        put("inputs", 0, "shape", ["x"]),
        put("inputs", 0, "shape", [None] * 65),
        put("inputs", 0, {"kind": "constant", "value": {"$torch.dtype": "float32"}}),
        put("args", {"list": [{"leaf": 0}]}),
        put("args", {"tuple": [{"leaf": 1}]}),
        put("kwargs", {"dict": [["x", {"leaf": 0}]]}),
        put("output", {"tuple": [{"leaf": 0}, {"leaf": 1}]}),
        put("names", [1]),
        put("names", "x"),
        put("conditions", [["**", 2, 9]]),
        put("conditions", [["dim", 0, 9]]),
        put("graph", "inputs", 4),
        put("graph", "outputs", []),
        put("graph", None),
    ],
)
def test_what_is_no_program_is_refused(change):
    data = export(torch.nn.Linear(3, 2), torch.randn(4, 3))
    with pytest.raises(IntegrityError, match="a program"):
        decode_program(changed(data, change), "a program")


@pytest.mark.parametrize("data", [b"", b"\n", b"[]\n", b"{}\n", b"{", b"PK\x03\x04\n"])
def test_what_is_no_line_of_json_is_refused(data):
    with pytest.raises(IntegrityError, match="a program"):
        decode_program(memoryview(data), "a program")


def test_a_number_is_no_condition_on_a_constant():
    data = export(nets.Structured(), ({"x": torch.ones(4, 3), "more": [torch.ones(4, 3)]}, 2))
    change = put("conditions", [["number", 2]])
    with pytest.raises(IntegrityError, match="input 2 is no number"):
        decode_program(changed(data, change), "a program")


def test_a_later_form_is_said_to_be_a_newer_ckptstores():
    data = export(torch.nn.Linear(3, 2), torch.randn(4, 3))
    with pytest.raises(NewerFormatError, match="a program of form 2"):
        decode_program(changed(data, put("program", 2)), "a program")
