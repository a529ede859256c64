"""Subclasses that are kept: a closed list of names, and nothing imported for any other."""

from __future__ import annotations

import importlib
import sys

import pytest

from ckptstore.errors import MissingPackageError
from ckptstore.format.subclasses import (
    ENUMS,
    RECORDS,
    SUBCLASSES,
    find,
    name_of,
    put_together_value,
    take_apart_value,
)
from tests.format.tensors import torchaos


@pytest.mark.parametrize("name", sorted({*SUBCLASSES, *ENUMS, *RECORDS}))
def test_every_name_is_that_of_a_class_of_the_package(name):
    torchaos()  # what it warns of when it is imported is its own affair
    found = find(name)
    assert name_of(found) == name
    assert isinstance(found, type)


def test_every_class_is_one_that_the_tests_save():
    assert {name_of(type(each)) for each in torchaos()} == {*SUBCLASSES}


@pytest.mark.parametrize("tensor", torchaos(), ids=lambda each: type(each).__name__)
def test_a_class_is_made_of_what_is_listed(tensor):
    made = SUBCLASSES[name_of(type(tensor))]
    names, _ = tensor.__tensor_flatten__()
    assert {name for name, inner in made.items() if inner.needed} <= {*names} <= {*made}


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torchao.quantization.quantize_",
        "torchao.quantization",
        "torchao",
        "",
        "antigravity.x",
        "torchao.quantization.Int8Tensor.__init__",
    ],
)
def test_a_name_that_is_not_listed_imports_nothing(name):
    before = set(sys.modules)
    with pytest.raises(ValueError, match="is no class whose values are kept"):
        find(name)
    assert set(sys.modules) == before


def test_a_class_that_another_version_lacks_is_named(monkeypatch):
    torchaos()
    monkeypatch.delattr(importlib.import_module("torchao.quantization"), "Int8Tensor")
    with pytest.raises(MissingPackageError, match=r"Int8Tensor of torchao.*installed has no such"):
        find("torchao.quantization.Int8Tensor")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    torchaos()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)

    class Nowhere:
        def find_spec(self, name, *_):
            if name.partition(".")[0] == "torchao":
                raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(sys, "meta_path", [Nowhere(), *sys.meta_path])
    with pytest.raises(MissingPackageError, match="which is not installed") as raised:
        find("torchao.quantization.granularity.PerRow")
    assert "pip install --upgrade torchao" in str(raised.value)


def values():
    torchaos()
    from torchao.float8.inference import Float8MMConfig
    from torchao.quantization.granularity import PerBlock, PerGroup, PerTensor
    from torchao.quantization.quant_primitives import MappingType

    return [
        *MappingType,
        PerTensor(),
        PerGroup(32),
        PerBlock((1, 128)),
        Float8MMConfig(use_fast_accum=True),
    ]


@pytest.mark.parametrize("value", values(), ids=str)
def test_enums_and_records_are_taken_apart_and_put_together(value):
    node, name, beside = take_apart_value(value)
    back = put_together_value(node, name, beside)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [1, "a", None, object(), pytest, int])
def test_nothing_else_is_taken_apart(value):
    assert take_apart_value(value) is None


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("$enum", "torchao.quantization.granularity.PerRow"),
        ("$record", "torchao.quantization.quant_primitives.MappingType"),
        ("$record", "torchao.quantization.Int8Tensor"),
        ("$record", "subprocess.Popen"),
        ("$enum", "re.RegexFlag"),
    ],
)
def test_a_class_is_of_the_kind_that_its_node_says(node, name):
    with pytest.raises(ValueError, match="is no class that"):
        put_together_value(node, name, {"member": "X"})
