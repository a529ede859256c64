"""Tensors as bytes and back: row-major, little-endian, without a copy wherever that is possible."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import prod

import torch
from blake3 import blake3

from ckptstore.errors import IntegrityError, StorageError, UnsupportedValueError

# Staging memory for tensors that are not contiguous or not on the CPU.
STAGING_BYTES = 16 * 1024 * 1024
# How many stretches of a tensor are a sample of it, and how long each is at most.
SAMPLES = 16
SAMPLE_BYTES = 256
# Where hashing in several threads is worth starting them.
WORTH_THREADS_BYTES = 1024 * 1024
QUANTISED = ("qint", "quint")
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check(tensor: torch.Tensor, path: str) -> None:
    """Refuse a tensor whose bytes can't be kept as they are.

    Those that are made of tensors that can be were taken apart before
    (:mod:`ckptstore.format.composite`).

    Raises:
        UnsupportedValueError: It is on meta, uninitialised, nested, distributed, of some other
            layout, or of a subclass that is not known; the error names it and says what to do.
    """
    kind = type(tensor)
    what, advice = f"a {kind.__module__}.{kind.__qualname__}", None
    if torch.nn.parameter.is_lazy(tensor):
        what, advice = (
            "a lazy parameter that has no shape yet",
            "run one forward pass before saving",
        )
    elif tensor.is_meta:
        what, advice = (
            "a tensor on the meta device",
            "it has no data: materialise the module before saving",
        )
    elif tensor.layout is not torch.strided:
        advice = "save its plain form: .to_dense(), or .unbind() of a nested tensor"
        what = f"a tensor of layout {tensor.layout}"
    elif tensor.is_quantized:
        what, advice = f"a quantised tensor of dtype {tensor.dtype}", "save .dequantize() of it"
    elif tensor.is_nested:
        what, advice = "a nested tensor", "save .unbind() of it, a tuple of plain tensors"
    elif kind in (torch.Tensor, torch.nn.Parameter):
        return
    elif is_sharded(tensor):
        what = "a tensor that is sharded over ranks (a DTensor)"
        advice = (
            "gather it first, on every rank, with get_model_state_dict(…, options="
            "StateDictOptions(full_state_dict=True)) of torch.distributed.checkpoint.state_dict, "
            "and save what rank 0 gets"
        )
    elif isinstance(tensor, torch.nn.Parameter):
        advice = "pass a state dict whose values are plain tensors (param.detach())"
    else:
        advice = "turn it into a plain tensor first"
    raise UnsupportedValueError(path, what, advice)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is one rank's share of a whole (a DTensor)."""
    # There is none before this was imported, which takes a while.
    sharding = sys.modules.get("torch.distributed.tensor")
    return sharding is not None and isinstance(tensor, sharding.DTensor)


def dtype_name(dtype: torch.dtype) -> str:
    """Return torch's name of a dtype without its prefix, e.g. ``float32``."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str, itemsize: int, where: str) -> torch.dtype:
    """Return the dtype of that name.

    Raises:
        IntegrityError: This torch has none of that name and item size.
    """
    dtype = getattr(torch, name, None)
    if (
        not isinstance(dtype, torch.dtype)
        or dtype.itemsize != itemsize
        or name.startswith(QUANTISED)  # torch crashes on one that has no scale
    ):
        raise IntegrityError(
            f"{where}: torch {torch.__version__} has no dtype {name!r} of {itemsize} bytes; "
            "if a newer torch saved it, upgrade torch"
        )
    return dtype


def stride_order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Return the dimensions from the slowest to the fastest in memory; None for row-major."""
    if tensor.is_contiguous() or 0 in tensor.stride():
        return None
    sizes, strides = tensor.shape, tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: (-strides[dim], sizes[dim] == 1, dim))
    return None if order == list(range(tensor.dim())) else tuple(order)


def identity(tensor: torch.Tensor) -> tuple[object, ...] | None:
    """Return what two tensors share exactly when they are the same view of the same memory.

    None for empty tensors, which share nothing.
    """
    if tensor.numel() == 0:
        return None
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.requires_grad,
        tensor.is_conj(),
        tensor.is_neg(),
        type(tensor),
    )


def is_plain(tensor: torch.Tensor) -> bool:
    """Say whether the tensor's own memory already is its bytes: on the CPU and row-major."""
    return (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
        and sys.byteorder == "little"
    )


def view_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a plain tensor (:func:`is_plain`) as bytes, without a copy."""
    if tensor.numel() == 0:
        return memoryview(b"")
    # Not view(-1): an only element may have any stride, and then its bytes can't be viewed.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8)
    return flat.numpy().data


def memory_sample(tensor: torch.Tensor) -> int | None:
    """Return the hash of a few stretches of a tensor's memory, 4 KiB spread over all of it.

    Equal tensors that lie in memory alike have equal samples within one process, on whatever
    device. The tensor must be larger than its sample.

    Returns:
        None for a tensor whose memory has gaps or overlaps, which can't be sampled so.
    """
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    if not tensor.permute(order).is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    size = tensor.dtype.itemsize
    width = SAMPLE_BYTES // size
    step = (tensor.numel() - width) // (SAMPLES - 1)
    if tensor.device.type == "cpu":
        memory = view_bytes(tensor)
        starts = range(0, SAMPLES * step * size, step * size)
        return hash(b"".join(memory[start : start + width * size] for start in starts))
    taken = as_integers(tensor.detach()).as_strided((SAMPLES, width), (step, 1))
    return hash(view_bytes(taken.contiguous().cpu()).tobytes())


def tensor_digest(tensor: torch.Tensor, *, alone: bool = False) -> str:
    """Return the BLAKE3 of a tensor's bytes, row-major.

    Args:
        tensor: Any strided one.
        alone: Whether other threads are to be left in peace.
    """
    if is_plain(tensor):
        view = view_bytes(tensor)
        threads = blake3.AUTO if view.nbytes >= WORTH_THREADS_BYTES and not alone else 1
        return blake3(view, max_threads=threads).hexdigest()
    state = blake3()
    for piece in pieces(tensor):
        state.update(piece)
    return state.hexdigest()


def pieces(tensor: torch.Tensor) -> Iterator[memoryview]:
    """Yield the bytes of any strided tensor in row-major order.

    A plain tensor is one piece, its own memory. Any other is staged in pieces of at most 16 MiB,
    each valid until the next is asked for.
    """
    if tensor.numel() == 0:
        return
    if is_plain(tensor):
        yield view_bytes(tensor)
        return
    with torch.no_grad():
        for part in _cut(tensor.detach(), max(1, STAGING_BYTES // tensor.dtype.itemsize)):
            # One copy at most: a gather on the tensor's own device, then a plain transfer.
            staged = as_integers(part.resolve_conj().resolve_neg()).contiguous().cpu()
            if sys.byteorder != "little":
                staged = _swapped(staged.view(part.dtype))
            yield view_bytes(staged)


def as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same memory as integers of the same size, which torch can copy for any dtype."""
    integers = INTEGERS.get(tensor.dtype.itemsize)
    return tensor if integers is None else tensor.view(integers)


def _cut(tensor: torch.Tensor, limit: int) -> Iterator[torch.Tensor]:
    """Cut a tensor into parts of at most *limit* elements that follow one another row-major."""
    if tensor.numel() <= limit or tensor.dim() == 0:
        yield tensor
        return
    row = prod(tensor.shape[1:])
    if row > limit:
        for index in range(tensor.shape[0]):
            yield from _cut(tensor[index], limit)
        return
    rows = max(1, limit // row)
    for start in range(0, tensor.shape[0], rows):
        yield tensor[start : start + rows]


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy whose elements' bytes are in the other order."""
    parts = 2 if tensor.is_complex() else 1
    size = tensor.dtype.itemsize // parts
    return tensor.view(-1).view(torch.uint8).view(-1, size).flip(1).contiguous()


def from_bytes(
    flat: torch.Tensor, dtype: torch.dtype, shape: Sequence[int], order: Sequence[int] | None
) -> torch.Tensor:
    """Return row-major bytes as the tensor they are.

    Args:
        flat: uint8, one-dimensional, on the CPU; its memory becomes the tensor's.
        dtype: The tensor's dtype.
        shape: Its shape.
        order: Its stride order; where one is given the result is a copy in that order.
    """
    if sys.byteorder != "little" and flat.numel():
        swapped = _swapped(flat.view(dtype)).view(-1)
        return from_rows(swapped.view(dtype).view(list(shape)), order)
    tensor = flat.view(dtype).view(list(shape)) if flat.numel() else _empty(list(shape), dtype)
    return from_rows(tensor, order)


def _empty(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    # As integers, as torch warns when it makes memory for half-precision complex numbers.
    integers = INTEGERS.get(dtype.itemsize, dtype)
    return torch.empty(shape, dtype=integers, device="cpu").view(dtype)


def from_rows(tensor: torch.Tensor, order: Sequence[int] | None) -> torch.Tensor:
    """Return a row-major tensor in another stride order; itself where *order* is None."""
    if order is None:
        return tensor
    strides = [0] * tensor.dim()
    step = 1
    for dim in reversed(order):
        strides[dim] = step
        step *= max(1, tensor.shape[dim])
    rows = as_integers(tensor)
    # Not on the default device, which the caller may have set.
    empty = torch.empty_strided(rows.shape, strides, dtype=rows.dtype, device=rows.device)
    return empty.copy_(rows).view(tensor.dtype)


def fresh_bytes(length: int) -> torch.Tensor:
    """Return *length* bytes of memory of their own, aligned as torch aligns everything.

    Raises:
        StorageError: There is no such amount of memory.
    """
    try:
        return torch.empty(length, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise StorageError(f"there is no memory for a tensor of {length} bytes: {error}") from error
