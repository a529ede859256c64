"""What can be reached from a module by its attributes, each thing once, under the path code has.

Tensors and plain containers are looked into, and objects of the user's own; whatever belongs to
other threads or drives the module from outside is not: trainers, loaders, optimizers, loggers.
"""

from __future__ import annotations

import sys
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

MOST = 100_000
"""So many things are looked at. A data set that is an attribute has more, and is no state."""
MEMBERS = ("_parameters", "_buffers", "_modules")
"""Where a module keeps what is an attribute to its users."""
CONTAINERS = (OrderedDict, dict, list, set, deque)
PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
OUTSIDE = frozenset(
    {
        "_io", "_thread", "asyncio", "concurrent", "io", "lightning", "lightning_fabric", "logging",
        "multiprocessing", "pytorch_lightning", "queue", "threading", "weakref",
    }
)  # fmt: skip
OUTSIDE_OF_TORCH = (
    "torch.utils.data", "torch.utils.tensorboard", "torch.optim", "torch.distributed",
)  # fmt: skip
OPAQUE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def reachable(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield what is reached from a module, itself first: modules, containers, tensors, objects."""
    seen: dict[int, Any] = {}
    pending: deque[tuple[str, Any]] = deque([("", module)])
    while pending and len(seen) < MOST:
        path, thing = pending.popleft()
        if id(thing) in seen or isinstance(thing, (*PLAIN, *OPAQUE)) or _is_outside(thing):
            continue
        seen[id(thing)] = thing  # so that no other gets its id meanwhile
        yield path, thing
        pending.extend(inside(path, thing))


def _is_outside(thing: object) -> bool:
    if isinstance(thing, (torch.nn.Module, torch.Tensor)):
        return False
    name = type(thing).__module__
    return name.split(".")[0] in OUTSIDE or name.startswith(OUTSIDE_OF_TORCH)


def inside(path: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is right in a thing, with its path."""
    if isinstance(thing, torch.Tensor):
        return
    if isinstance(thing, (OrderedDict, dict)):
        for key, value in list(dict.items(thing)):
            yield f"{path}[{key!r:.40}]", value
    elif isinstance(thing, (list, tuple, deque)):
        for place, value in enumerate(list(thing)):
            yield f"{path}[{place}]", value
    for name, value in list(attributes(thing).items()):
        if name in MEMBERS and isinstance(thing, torch.nn.Module):
            for each, member in list((value or {}).items()):
                yield _joined(path, each), member
            yield _joined(path, name), value
        else:
            yield _joined(path, name), value


def attributes(thing: Any) -> dict[str, Any]:
    """Return the dict of a thing's attributes itself; an empty one where it has none."""
    found = getattr(thing, "__dict__", None)
    return found if type(found) is dict else {}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def told(module: torch.nn.Module) -> dict[str, Any]:
    """Return by path what code can tell apart from one call to the next.

    Parameters are left out, which may not change at all, and the modes.
    """
    state = {id(each) for each in module.parameters()}
    found: dict[str, Any] = {}
    for path, thing in reachable(module):
        if isinstance(thing, torch.Tensor):
            if id(thing) not in state:
                found[path] = thing.detach().clone()
            continue
        if isinstance(thing, (*CONTAINERS, bytearray)) and path.split(".")[-1] not in MEMBERS:
            found[path] = bytes(thing) if isinstance(thing, bytearray) else len(thing)
        elif is_array(thing):
            found[path] = thing.copy()
        found |= {
            name: value
            for name, value in inside(path, thing)
            if isinstance(value, PLAIN) and name.split(".")[-1] != "training"
        }
    return found


def is_array(thing: object) -> bool:
    """Say whether a thing is an array of NumPy's with values of its own."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.ndarray) and not thing.dtype.hasobject


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the paths that are told apart."""
    paths = [*before, *(path for path in after if path not in before)]
    return _shortest(path for path in paths if not _is_same(before, after, path))


def _is_same(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> bool:
    if path not in before or path not in after:
        return False
    one, two = before[path], after[path]
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same_kind = (one.dtype, one.shape, one.device) == (two.dtype, two.shape, two.device)
        return same_kind and torch.equal(one.nan_to_num(), two.nan_to_num())
    if is_array(one) and is_array(two):
        return bool(one.shape == two.shape and one.tobytes() == two.tobytes())
    return type(one) is type(two) and repr(one) == repr(two)


def _shortest(paths: Iterable[str]) -> list[str]:
    """Return paths without those that lie in another of them."""
    kept = Counter(paths)
    return [
        path
        for path in kept
        if not any(path.startswith((f"{other}[", f"{other}.")) for other in kept)
    ]
