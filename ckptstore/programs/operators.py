"""The operators a program may call, by name. A name is looked up here and among torch's operators.

====================== ==========================================================================
name                   what it computes
====================== ==========================================================================
``aten.linear.default``  torch's operator of that name and overload
``number.add`` …         a whole or real number from others: sizes are computed so
``item``                 one of the results of an operator that has several
``grad``                 a part of the program with gradients on or off
``autocast``             a part of the program under autocast
``cond``                 one of two parts, as a tensor or boolean says
====================== ==========================================================================

What runs is therefore code that is part of torch, or of a package that registered operators and
that the caller named; never something that a file brings along.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from ckptstore.errors import IntegrityError, MismatchError

NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")
# Operators of aten take and give tensors. These take none, and are needed all the same.
WITHOUT_TENSORS = frozenset(
    {"_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"}
)
# Of what is about tensors, too: it reads and makes files, takes places in memory or sizes
# unchecked, gives a tensor other memory, or changes what a tensor is rather than its values.
REFUSED = re.compile(
    r"from_file|_?set_.*|set|data|.*unsafe.*|.*nested.*|.*jagged.*|.*resize.*|.*backward.*"
    r"|_?requires_grad_?|retains?_grad|record_stream|.*pin_memory|is_pinned|rename_?|detach_"
    r"|_coalesced_?|_copy_from.*|_lazy_clone|_(test|foobar|fw_|make_dual|unpack_dual|cslt_).*"
)
# They check what they are given: what is unsafe in them is to write to what they return.
CHECKED = frozenset(
    {
        "_unsafe_index", "_unsafe_index_put", "_unsafe_masked_index", "_unsafe_view",
        "_unsafe_masked_index_put_accumulate", "unsafe_chunk", "unsafe_split",
        "unsafe_split_with_sizes",
    }
)  # fmt: skip


def _sum(*values: Any) -> Any:
    return sum(values[0] if isinstance(values[0], list) else values)


NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and_": operator.and_,
    "or_": operator.or_,
    "not_": operator.not_,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "round": round,
    "sqrt": math.sqrt,
    "sym_int": int,
    "sym_float": float,
    "sym_not": operator.not_,
    "sym_max": max,
    "sym_min": min,
    "sym_sum": _sum,
}
# It reads attributes by name, out of what a tensor subclass is made of.
OF_TRACING = "export."
OF_TORCH = ("sym_int", "sym_float", "sym_not", "sym_max", "sym_min", "sym_sum")
PARTS = {"wrap_with_set_grad_enabled": "grad", "wrap_with_autocast": "autocast", "cond": "cond"}


def name_of(target: object) -> str | None:
    """Return the name of what a node of an exported graph calls, None if it has none here."""
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - the only name of that class
        name = str(target)
        return name if NAME.fullmatch(name) and not name.startswith(OF_TRACING) else None
    if isinstance(target, torch._ops.HigherOrderOperator):  # noqa: SLF001 - likewise
        return PARTS.get(target.name())  # type: ignore[no-untyped-call] # torch left it untyped
    if target is operator.getitem:
        return "item"
    for name, function in NUMBERS.items():
        known = getattr(torch, name, None) if name in OF_TORCH else function
        if target is known:
            return f"number.{name}"
    # torch.sym_sqrt and its like: math's functions for sizes.
    name = str(getattr(target, "__name__", "")).removeprefix("_").removeprefix("sym_")
    return f"number.{name}" if name in NUMBERS and _is_of_torch(target) else None


def _is_of_torch(target: object) -> bool:
    return str(getattr(target, "__module__", "")).split(".")[0] == "torch"


def namespace(name: str) -> str | None:
    """Return the package's name for operators that are not torch's own, None for any other."""
    first, _, rest = name.partition(".")
    return first if rest and first not in ("aten", "number") else None


def resolve(name: str, allowed: Collection[str], where: str) -> Callable[..., Any]:
    """Return what a name in a program stands for.

    Args:
        name: As the program has it.
        allowed: Namespaces of operators beside torch's own that the caller named.
        where: Names the program in errors.

    Raises:
        IntegrityError: There is no such operator, or it computes nothing from tensors.
        MismatchError: It is of a package that was not named or is not imported.
    """
    if name in CONTROL:
        return CONTROL[name]
    first, _, second = name.partition(".")
    if first == "number" and second in NUMBERS:
        return _of_numbers(NUMBERS[second], name)
    match = NAME.fullmatch(name)
    if match is None:
        raise IntegrityError(f"{where}: {name!r:.80} is no operator")
    package, operation, overload = match.groups()
    if name.startswith(OF_TRACING):
        raise IntegrityError(f"{where}: {name!r:.80} is no operator that a program may call")
    if package != "aten" and package not in allowed:
        raise MismatchError(
            f"{where} calls operators that are not torch's own",
            [f"{name!r} is of {package!r}"],
            f"import the package that registers them and pass operators=[{package!r}]",
        )
    found = getattr(getattr(torch.ops, package), operation, None)
    found = getattr(found, overload, None)
    if not isinstance(found, torch._ops.OpOverload):  # noqa: SLF001 - the only name of that class
        raise MismatchError(
            f"{where} calls an operator that is not there",
            [f"{name!r} is unknown to torch {torch.__version__}"],
            "it was saved with another torch, or the package that registers it is not imported",
        )
    if package == "aten" and not _computes(found, operation):
        raise IntegrityError(f"{where}: {name!r} is no operator that a program may call")
    return found


def _computes(found: Any, operation: str) -> bool:
    """Say whether an operator of aten computes from tensors, and does nothing else."""
    if operation in WITHOUT_TENSORS:
        return True
    if operation not in CHECKED and REFUSED.fullmatch(operation):
        return False
    schema = found._schema  # noqa: SLF001 - torch has no other name for it
    overload = str(schema.overload_name)
    if overload.rsplit("_", 1)[-1] == "out" or any(each.is_out for each in schema.arguments):
        return False  # it gives what it writes to another size, and no graph has one
    kinds = [str(each.type) for each in (*schema.arguments, *schema.returns)]
    return any("Tensor" in kind for kind in kinds)


def _of_numbers(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def compute(*operands: Any) -> Any:
        for each in operands:
            for item in each if isinstance(each, list) else [each]:
                if not isinstance(item, (int, float)):
                    raise IntegrityError(f"{name} of a {type(item).__qualname__} in a program")
        return function(*operands)

    return compute


def _item(values: Any, place: Any) -> Any:
    if not isinstance(values, (list, tuple)) or type(place) is not int:
        raise IntegrityError(f"item {place!r:.40} of a {type(values).__qualname__} in a program")
    return values[place]


def _grad(enabled: Any, part: Callable[..., Any], *inputs: Any) -> Any:
    with torch.set_grad_enabled(bool(enabled)):
        return part(*inputs)


def _autocast(
    device: torch.device,
    dtype: torch.dtype | None,
    enabled: Any,
    cached: Any,
    part: Callable[..., Any],
    *inputs: Any,
) -> Any:
    with torch.autocast(device.type, dtype, enabled=bool(enabled), cache_enabled=cached):
        return part(*inputs)


def _cond(
    chosen: Any, if_true: Callable[..., Any], if_false: Callable[..., Any], inputs: Sequence[Any]
) -> Any:
    return (if_true if bool(chosen) else if_false)(*inputs)


CONTROL: dict[str, Callable[..., Any]] = {
    "item": _item,
    "grad": _grad,
    "autocast": _autocast,
    "cond": _cond,
}
