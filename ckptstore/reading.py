"""How what a version holds is read: the options of ``load``, patterns of keys, tensors unread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar

if TYPE_CHECKING:
    import torch

Model = TypeVar("Model", bound="torch.nn.Module")
"""What a module's class builds: loading gives back just that."""
Patterns = str | Iterable[str] | None
"""One pattern of keys or several."""
KeyPatterns = Patterns | Mapping[str, Patterns]
"""Patterns for all module parts, or by part."""


class LoadOptions(TypedDict, total=False):
    """How a module is loaded."""

    device: str | int | torch.device | None
    """None, the default, means CUDA if there is one, else the CPU."""
    part: str
    """The part to load; ``model`` by default."""
    model_config: Mapping[str, Any] | None
    """Constructor arguments instead of the recorded ones."""
    mmap: bool
    """On the CPU and a local disk, map weights instead of reading them where that is safe; they are
    private copies either way. True by default."""
    build: Literal["auto", "plain"]
    """``"plain"`` builds the module as its class does, random initialisation included; the result
    is the same. ``"auto"``, the default, skips that work where it makes no difference."""
    only: str | Iterable[str] | None
    """Load these keys alone, e.g. ``"encoder.*"``, or several patterns. The others are not read,
    but for small gaps, and what they are in the module is as its class makes it. A pattern is
    compared with the saved keys: ``*`` stands for any characters, dots too, ``?`` for one, ``[ab]``
    for one of these. One that fits a module means all that is below it: ``"encoder"`` is
    ``"encoder.*"``."""
    skip: str | Iterable[str] | None
    """Patterns, as for ``only``, of keys not to load."""
    rename: Mapping[str, str] | None
    """What saved keys are called in the module: ``{"backbone.": "encoder."}`` by prefixes, of which
    the longest that fits counts; a whole key is one too. ``""`` is the prefix of all."""
    strict: bool
    """True, the default, refuses a module that does not fit what is loaded. False leaves out what
    was not saved, what the module lacks, and what has another shape, with a
    :class:`~ckptstore.errors.KeysWarning` whose ``report`` lists the keys."""
    dtype: torch.dtype | None
    """Floating tensors in that dtype: weights, buffers and whatever is as the class makes it.
    Integers, bools, complex numbers and quantised weights, torchao's too, stay as they are. None,
    the default, means the dtypes they had when they were saved."""
    verify: bool
    """True, the default, compares every byte with its digest before anybody sees it. False
    does not, which on a local disk makes a load some times faster: only that each file has its
    size and begins as it was saved is still checked. Weights that a disk has damaged are then
    loaded as they are."""


class LazyTensor(Protocol):
    """A saved tensor of which nothing was read yet: ``checkpoint.tensors("model")["fc.weight"]``.

    ``tensor[...]`` reads it whole, ``tensor[:100]`` its first hundred rows and no byte more. It can
    also be handed to torch's functions as it is (``weight.copy_(tensor)``): they read it whole.
    """

    name: str

    @property
    def shape(self) -> torch.Size:
        """Its shape, known without reading."""

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype, known without reading: the one that it was stored in."""

    @property
    def was(self) -> torch.dtype | None:
        """The dtype it had, where it was stored in another one (``save(dtype=…)``); else None."""

    def __len__(self) -> int: ...

    def read(self) -> torch.Tensor:
        """Read it whole, compared with its digest.

        Returns:
            A tensor on the CPU that requires no gradient.

        Raises:
            IntegrityError: Its bytes are not those that were saved.
            StorageError: The storage failed.
        """

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Read a slice: integers, slices with a step from 1, ``...`` and None.

        What is read are the bytes of the slice; where its rows lie close together in the file, what
        is between them too. **They are not compared with a digest**, since those are of whole
        tensors: only that the file has its size and begins as it was saved is. Take
        ``tensors(part, verify=True)`` to have the whole tensor read and compared each time.

        Raises:
            ArgumentError: It is no such slice, or the tensor is made of several (sparse, quantised)
                and can only be read whole.
            IndexError: It is out of range.
            IntegrityError: The file is not as it was saved.
            StorageError: The storage failed.
        """
