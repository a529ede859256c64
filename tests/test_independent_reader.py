"""A reader that knows only ``docs/format.md`` reads what ckptstore reads."""

from __future__ import annotations

import base64
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ckptstore import Store
from ckptstore.format.journal import decode_entry
from ckptstore.format.untree import decode
from tests.independent_reader import sealed, value, version
from tests.test_golden import GOLDEN, VERSIONS

JOURNAL = sorted((GOLDEN / "runs/digits/_journal").iterdir())


@pytest.mark.parametrize("ref", VERSIONS)
def test_both_readers_agree_on_every_part(ref):
    entry = Store(GOLDEN, catalog="sqlite://").get(ref)
    _, states = version(GOLDEN, entry.run, entry.version)

    assert tuple(states) == entry.parts
    for part, state in states.items():
        assert shown(state) == shown(entry.state(part)), part


@pytest.mark.parametrize("ref", VERSIONS)
def test_both_readers_agree_on_the_head(ref):
    entry = Store(GOLDEN, catalog="sqlite://").get(ref)
    head, _ = version(GOLDEN, entry.run, entry.version)

    assert head["save"] == entry.save_id
    assert shown(value(head["metrics"])) == shown(entry.metrics)
    assert shown(value(head["config"])) == shown(entry.config)
    assert (head["epoch"], head["step"], head["kind"]) == (
        entry.epoch,
        entry.step,
        type(entry).__name__.lower(),
    )
    assert (head["parent"] and f"{head['parent']['run']}@{head['parent']['version']}") == (
        entry.parent
    )


@pytest.mark.parametrize("file", JOURNAL, ids=lambda file: file.stem)
def test_both_readers_agree_on_the_journal(file):
    read, entry = sealed(file), decode_entry(file.read_bytes(), file.name)

    assert read["writer"] == str(entry.writer)
    if read["kind"] == "tag":
        assert (read["tag"], read["version"]) == (entry.tag, entry.version)
    else:
        assert (read["monitor"], read["mode"]) == (entry.settings.monitor, entry.settings.mode)
        assert value(read["config"]) == decode(entry.settings.config, "config")


def test_a_flipped_bit_is_noticed_by_the_other_reader_too(tmp_path):
    damaged = tmp_path / "00000001.json"
    damaged.write_bytes(JOURNAL[0].read_bytes().replace(b"accuracy", b"accurace"))

    with pytest.raises(AssertionError):
        sealed(damaged)


def shown(state: Any) -> Any:
    """State of either reader in one form: equal exactly where types and bits are."""
    for kind, node in NODES.items():
        if isinstance(state, kind):
            return shown(node(state))
    if isinstance(state, dict):
        if "chunks" in state:  # where the other reader found a tensor, nobody else needs to know
            state = {name: state[name] for name in MEMBERS if name in state}
        beside = [getattr(state, "default_factory", None)]
        if isinstance(state, OrderedDict):
            beside.append(shown(getattr(state, "_metadata", None)))
        return (
            type(state).__name__,
            [(shown(key), shown(item)) for key, item in state.items()],
            beside,
        )
    if isinstance(state, (set, frozenset)):
        return (type(state).__name__, sorted(map(repr, state)))
    if isinstance(state, (list, tuple, deque)):
        items = [shown(item) for item in state]
        return (type(state).__name__, items, getattr(state, "maxlen", None))
    return (type(state).__name__, repr(state))


def tensor(value: torch.Tensor) -> dict[str, Any]:
    """A tensor as the other reader has it, in the order of the manifest's members."""
    plain = value.detach().contiguous().reshape(-1)
    order = sorted(range(value.dim()), key=lambda dim: (-value.stride(dim), dim))
    return {
        "dtype": torch_name(value.dtype),
        "shape": list(value.shape),
        **({} if value.is_contiguous() else {"order": order}),
        **({"requires_grad": True} if value.requires_grad else {}),
        "data": plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"",
    }


def array(value: np.ndarray) -> dict[str, Any]:
    return {
        "$array": {"dtype": "uint8", "shape": [value.nbytes], "data": value.tobytes()},
        "dtype": value.dtype.str,
        "shape": list(value.shape),
        "fortran": bool(value.flags.f_contiguous and not value.flags.c_contiguous),
    }


def torch_name(value: object) -> str:
    return str(value).removeprefix("torch.")


MEMBERS = ("dtype", "shape", "order", "requires_grad", "data")

# What the other reader leaves as it stands in the tree. The first that fits counts.
NODES: dict[type, Callable[[Any], dict[str, Any]]] = {
    torch.nn.Parameter: lambda value: {"$tensor": tensor(value), "parameter": True},
    torch.Tensor: lambda value: {"$tensor": tensor(value)},
    torch.Size: lambda value: {"$torch.Size": list(value)},
    torch.device: lambda value: {"$torch.device": str(value)},
    torch.dtype: lambda value: {"$torch.dtype": torch_name(value)},
    torch.layout: lambda value: {"$torch.layout": torch_name(value)},
    torch.memory_format: lambda value: {"$torch.memory_format": torch_name(value)},
    np.ndarray: array,
    np.generic: lambda value: {
        "$scalar": base64.b64encode(value.tobytes()).decode(),
        "dtype": value.dtype.str,
    },
    np.dtype: lambda value: {"$numpy.dtype": value.str},
}
