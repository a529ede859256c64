"""Tensors that are made of other tensors, apart and together: sparse, quantised, and subclasses.

Apart they are plain tensors and a few values; a tree holds both in one node. What is put together
is checked first, as far as a kernel relies on it: an index outside its tensor would let a kernel
read and write outside of memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptstore.errors import UnsupportedValueError
from ckptstore.format.subclasses import SUBCLASSES, find, name_of

if TYPE_CHECKING:
    import torch

SPARSE, QUANTIZED, SUBCLASS = "$sparse", "$quantized", "$subclass"
COMPOSITES = frozenset({SPARSE, QUANTIZED, SUBCLASS})
INDICES = ("int32", "int64")
# The names of a layout's index tensors are torch's; the rest of the tensors is "values".
COMPRESSED = {
    "csr": ("crow_indices", "col_indices"),
    "csc": ("ccol_indices", "row_indices"),
    "bsr": ("crow_indices", "col_indices"),
    "bsc": ("ccol_indices", "row_indices"),
}
# Integers of each dtype that torch's quantised ones are made of.
QUANTISED_INTEGERS = {"qint8": "int8", "quint8": "uint8", "qint32": "int32"}
PER_CHANNEL = {
    "per_channel_affine": ("float64", "int64"),
    "per_channel_affine_float_qparams": ("float32", "float32"),
}


@dataclass(frozen=True)
class Apart:
    """A tensor taken apart.

    Attributes:
        node: The name of its node in a tree.
        content: What kind of it: a layout, a scheme, a class.
        facts: Values beside it.
        tensors: What it is made of: plain tensors, not copied, but the integers of a quantised one.
    """

    node: str
    content: str
    facts: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def take_apart(tensor: torch.Tensor) -> Apart | None:
    """Return what a tensor is made of; None for a plain one, and for one that can't be kept."""
    import torch

    kind = type(tensor)
    is_own = kind in (torch.Tensor, torch.nn.Parameter)
    # First what nearly all of them are, as each is looked at many times.
    if tensor.is_meta or (is_own and tensor.layout is torch.strided and not tensor.is_quantized):
        return None
    name = name_of(kind)
    if name in SUBCLASSES:
        return _subclass_apart(name, tensor)
    if not is_own:
        return None
    layout = str(tensor.layout).removeprefix("torch.sparse_")
    if layout == "coo" or layout in COMPRESSED:
        return _sparse_apart(layout, tensor.detach())
    return _quantized_apart(tensor.detach()) if tensor.is_quantized else None


def checked_apart(tensor: torch.Tensor, path: str) -> Apart | None:
    """Return what a tensor is made of, once it was seen that a reader can put it together.

    Raises:
        UnsupportedValueError: Its indices break what torch's kernels rely on; it has *path*.
    """
    apart = take_apart(tensor)
    if apart is None or apart.node != SPARSE:
        return apart
    try:
        put_together(apart.node, apart.content, apart.facts, apart.tensors)
    except RuntimeError as error:
        raise UnsupportedValueError(
            path,
            f"a sparse tensor that torch does not accept ({error})",
            "build it with check_invariants=True, which says where it goes wrong",
        ) from error
    return apart


def tie(tensor: torch.Tensor, apart: Apart) -> tuple[object, ...] | None:
    """Return what two composites share exactly when they are the same views of the same memory.

    None for those without elements, which share nothing.
    """
    import torch

    # A quantised tensor's integers are a copy; the memory is its own.
    owners = (tensor,) if apart.node == QUANTIZED else tuple(apart.tensors.values())
    if not any(each.numel() for each in owners):
        return None
    return (
        apart.node,
        apart.content,
        repr(apart.facts),
        isinstance(tensor, torch.nn.Parameter),
        tensor.requires_grad,
        *((each.device, each.data_ptr(), tuple(each.shape), each.stride()) for each in owners),
    )


def _sparse_apart(layout: str, tensor: torch.Tensor) -> Apart:
    facts: dict[str, Any] = {"shape": list(tensor.shape)}
    if layout == "coo":
        facts["coalesced"] = tensor.is_coalesced()
        # As they are: indices() and values() are those of coalesced tensors only.
        parts = {"indices": tensor._indices(), "values": tensor._values()}  # noqa: SLF001 - see above
    else:
        parts = {name: getattr(tensor, name)() for name in (*COMPRESSED[layout], "values")}
    return Apart(SPARSE, layout, facts, parts)


def _quantized_apart(tensor: torch.Tensor) -> Apart | None:
    dtype = _named(tensor.dtype)
    if dtype not in QUANTISED_INTEGERS:
        return None  # several elements a byte: torch can't make one of its integers
    scheme = _named(tensor.qscheme())
    parts = {"integers": tensor.int_repr()}
    if scheme == "per_tensor_affine":
        facts = {"scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
    elif scheme in PER_CHANNEL:
        facts = {"axis": tensor.q_per_channel_axis()}
        parts["scales"] = tensor.q_per_channel_scales()
        parts["zero_points"] = tensor.q_per_channel_zero_points()
    else:
        return None
    return Apart(QUANTIZED, scheme, {"dtype": dtype, **facts}, parts)


def _subclass_apart(name: str, tensor: Any) -> Apart | None:
    names, context = tensor.__tensor_flatten__()
    tensors = {inner: getattr(tensor, inner) for inner in names}
    if not _made_as_listed(name, tensors):
        return None
    facts = {"shape": list(tensor.shape), "context": context}
    tensors = {inner: part.detach() for inner, part in tensors.items()}
    return Apart(SUBCLASS, name, facts, tensors)


def put_together(
    node: str, content: str, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Return the tensor that :func:`take_apart` took apart; it has the memory of *tensors*.

    It requires no gradient, and is no ``Parameter``.

    Raises:
        ValueError, TypeError, KeyError, RuntimeError: The tensors and values don't make such a one.
        MissingPackageError: It is of a package that is not installed.
    """
    check_form(node, content, facts, tensors)
    with _quietly():
        return _TOGETHER[node](content, facts, tensors)


def check_form(
    node: str, content: str, facts: Mapping[str, Any], tensors: Mapping[str, object]
) -> None:
    """Refuse a node that no tensors whatever could make a tensor; only their names are looked at.

    Raises:
        ValueError: It is of no known kind, or has other tensors or values than that kind.
    """
    if node == SPARSE:
        if content != "coo" and content not in COMPRESSED:
            raise ValueError(f"{content!r:.80} is no sparse layout")
        names = {*(("indices",) if content == "coo" else COMPRESSED[content]), "values"}
        wanted = {"shape", "coalesced"} if content == "coo" else {"shape"}
    elif node == QUANTIZED:
        if content != "per_tensor_affine" and content not in PER_CHANNEL:
            raise ValueError(f"{content!r:.80} is no scheme of a quantised tensor")
        per_tensor = content == "per_tensor_affine"
        names = {"integers"} if per_tensor else {"integers", "scales", "zero_points"}
        wanted = {"dtype", *(("scale", "zero_point") if per_tensor else ("axis",))}
    else:
        if content not in SUBCLASSES:
            raise ValueError(f"{content!r:.80} is no class of tensors that are kept")
        made = SUBCLASSES[content]
        names = {name for name, inner in made.items() if inner.needed} | {*tensors} & {*made}
        wanted = {"shape", "context"}
    if {*tensors} != names or {*facts} != wanted:
        raise ValueError(
            f"a {node} of kind {content} has tensors {sorted(names)} and values {sorted(wanted)}, "
            f"not {sorted(tensors)!r:.200} and {sorted(facts)!r:.200}"
        )
    if "shape" in facts and not _is_shape(facts["shape"]):
        raise ValueError(f"{facts['shape']!r:.80} is no shape")


def _sparse(
    layout: str, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    import torch

    shape = torch.Size(facts["shape"])
    if layout == "coo":
        if tensors["indices"].dtype is not torch.int64:  # torch would cast what is none
            raise ValueError(f"indices of dtype {tensors['indices'].dtype}")
        return torch.sparse_coo_tensor(
            tensors["indices"],
            tensors["values"],
            shape,
            is_coalesced=facts["coalesced"],
            check_invariants=True,
        )
    indices = [tensors[name] for name in COMPRESSED[layout]]
    if any(_named(each.dtype) not in INDICES for each in indices):
        raise ValueError(f"indices of dtypes {[each.dtype for each in indices]}")
    # Its stub in torch knows the arguments in another order.
    make: Callable[..., torch.Tensor] = torch.sparse_compressed_tensor
    which = getattr(torch, f"sparse_{layout}")
    return make(*indices, tensors["values"], shape, layout=which, check_invariants=True)


def _quantized(
    scheme: str, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    import torch

    integers = tensors["integers"]
    if QUANTISED_INTEGERS.get(facts["dtype"]) != _named(integers.dtype):
        raise ValueError(f"a {facts['dtype']!r:.80} made of {integers.dtype}")
    dtype = getattr(torch, facts["dtype"])
    if scheme == "per_tensor_affine":
        scale, zero_point = facts["scale"], facts["zero_point"]
        if type(scale) is not float or type(zero_point) is not int:
            raise ValueError(f"scale {scale!r:.80} and zero point {zero_point!r:.80}")
        empty: Callable[..., torch.Tensor] = torch._empty_affine_quantized  # noqa: SLF001 - as torch's own loading does
        made = empty([0], scale=scale, zero_point=zero_point, dtype=dtype, device=integers.device)
        return _over(integers, made)
    axis, channels = facts["axis"], (tensors["scales"], tensors["zero_points"])
    if type(axis) is not int or not 0 <= axis < integers.dim():
        raise ValueError(f"axis {axis!r:.80} of a tensor of {integers.dim()} dimensions")
    found = [(_named(each.dtype), list(each.shape)) for each in channels]
    wanted = [(dtype, [integers.shape[axis]]) for dtype in PER_CHANNEL[scheme]]
    if found != wanted:
        raise ValueError(f"scales and zero points are {found}, and should be {wanted}")
    empty = torch._empty_per_channel_affine_quantized  # noqa: SLF001 - as torch's own loading does
    made = empty(
        integers.shape,
        scales=channels[0],
        zero_points=channels[1],
        axis=axis,
        dtype=dtype,
        device=integers.device,
    )
    return _over(integers, made)


def _over(integers: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Give a quantised tensor the memory, shape and strides of its integers."""
    return quantized.set_(
        integers.untyped_storage(), integers.storage_offset(), integers.shape, integers.stride()
    )


def _subclass(
    name: str, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    if not _made_as_listed(name, tensors):
        raise ValueError(f"a {name} is not made of { {n: t.dtype for n, t in tensors.items()} }")
    import torch

    kind, context, shape = find(name), facts["context"], torch.Size(facts["shape"])
    if isinstance(context, dict):
        # As its own __setstate__ does with what an older version did not save.
        more = getattr(kind, "optional_tensor_attribute_names", ())
        context = dict.fromkeys(more) | context
    strides = torch.empty(shape, device="meta").stride()
    made: torch.Tensor = kind.__tensor_unflatten__(dict(tensors), context, shape, strides)
    if made.shape != shape:
        raise ValueError(f"a {name} of shape {list(made.shape)}, and should be {list(shape)}")
    return made


_TOGETHER = {SPARSE: _sparse, QUANTIZED: _quantized, SUBCLASS: _subclass}


def _made_as_listed(name: str, tensors: Mapping[str, Any]) -> bool:
    import torch

    made = SUBCLASSES[name]
    return {inner for inner, each in made.items() if each.needed} <= {*tensors} <= {*made} and all(
        type(part) in (torch.Tensor, torch.nn.Parameter)
        and part.layout is torch.strided
        and _named(part.dtype) in made[inner].dtypes
        and made[inner].count in (None, part.numel())
        for inner, part in tensors.items()
    )


def _named(value: object) -> str:
    """Return the name of a dtype or scheme, without torch's."""
    return str(value).removeprefix("torch.")


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


@contextmanager
def _quietly() -> Iterator[None]:
    """Let torch not say that its sparse and quantised tensors are beta or deprecated.

    Whoever saved them has been told, and no warning may keep anybody from loading.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
