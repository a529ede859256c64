"""A part out of a version: its state, or a module built for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.optim.swa_utils import AveragedModel

from ckptstore.errors import (
    ArgumentError,
    IntegrityError,
    KeysWarning,
    MismatchError,
    VersionNotFoundError,
    warn,
)
from ckptstore.format.untree import decode, tensor_places
from ckptstore.loading.averages import is_average, makes_average
from ckptstore.loading.build import Built
from ckptstore.loading.build import build as build_module
from ckptstore.loading.choice import Choice, choice_of
from ckptstore.loading.chosen import Chosen, begin_state
from ckptstore.loading.dtypes import check_dtype, convert_module, in_dtype
from ckptstore.loading.fetch import begin
from ckptstore.loading.pinned import onto
from ckptstore.manifest import OpenManifest
from ckptstore.state.devices import resolve
from ckptstore.state.init_args import accepted, required_parameters
from ckptstore.state.modules import unwrap

Factory = Callable[..., torch.nn.Module]


def load_state(
    opened: OpenManifest,
    name: str,
    *,
    device: str | int | torch.device = "cpu",
    map_files: bool = False,
) -> Any:
    """Return a part's state as it was stored.

    Args:
        opened: The version.
        name: The part's name.
        device: Where its tensors go.
        map_files: Whether tensors may be mapped instead of read (see :func:`.fetch.fetch`).

    Raises:
        VersionNotFoundError: There is no such part.
        IntegrityError: Some of its bytes are not what was saved.
        StorageError: The storage failed.
    """
    target = resolve(device)
    part = opened.part(name)
    where = f"{opened.where}, part {name!r}"
    places = {place for place in tensor_places(part.tree) if 0 <= place < len(part.tensors)}
    fetched = begin(
        opened.storage,
        opened.head,
        name,
        part,
        places,
        map_files=map_files,
        onto=onto(target, part),
    )
    fetched.check()
    tensors = fetched.tensors
    if target.type != "cpu":
        # What is not there yet, one at a time, so that the host's copy goes as the device's comes.
        # NumPy arrays have no device to go to.
        for place in places - tensor_places(part.tree, ["$array"]):
            tensors[place] = (
                tensors[place].detach().to(target).requires_grad_(tensors[place].requires_grad)
            )
    return decode(part.tree, where, tensors.__getitem__)


def load_module(
    opened: OpenManifest,
    factory: Factory,
    *,
    device: str | int | torch.device | None = None,
    part: str = "model",
    model_config: Mapping[str, Any] | None = None,
    mmap: bool = True,
    build: Literal["auto", "plain"] = "auto",
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    strict: bool = True,
    dtype: torch.dtype | None = None,
    verify: bool = True,
) -> Built:
    """Build a module for a part's state, in eval mode on its device.

    What of it gets no saved value is as its class makes it, and warned of unless it was not asked
    for.

    Args:
        opened: The version.
        factory: The module's class, or any callable that builds it.
        device: Where it goes; None means CUDA if there is one, else the CPU.
        part: The part's name.
        model_config: Constructor arguments instead of the recorded ones.
        mmap: On the CPU, map what can be mapped.
        build: ``"plain"`` builds the module as its class does it.
        only: Patterns of the saved keys to load; the bytes of others are not read.
        skip: Patterns of saved keys not to load.
        rename: What prefixes of saved keys are in the module.
        strict: Whether keys that don't fit are refused; else they are left, with a warning.
        dtype: What floating tensors are converted to.
        verify: Whether tensors' bytes are compared with their digests.

    Raises:
        ArgumentError: *factory* is no callable, or needs arguments that nobody recorded; or a
            choice of keys makes no sense.
        VersionNotFoundError: The version has no such part, or it is no module's.
        MismatchError: The module does not fit.
        IntegrityError: Some bytes are not what was saved.
    """
    _check_arguments(factory, build, verify=verify)
    choice = choice_of(only=only, skip=skip, rename=rename, strict=strict, dtype=check_dtype(dtype))
    target = resolve(device)
    infos = {info.name: info for info in opened.head.parts}
    if part not in infos:
        opened.part(part)  # raises, and lists those there are
    elif infos[part].kind not in ("module", "state_dict"):
        raise VersionNotFoundError(
            f"part {part!r} of {opened.head.ref} is no module: .state({part!r}) returns what was "
            "saved"
        )
    # Whoever renames its keys means them as they were saved.
    inner = is_average(infos[part]) and not makes_average(factory) and not choice.rename
    load = functools.partial(
        _load,
        opened,
        factory,
        _arguments(opened, factory, part, model_config),
        device=target,
        part=part,
        mmap=mmap,
        build=build,
        choice=choice,
        verify=verify,
    )
    outer: list[Any] = []
    try:
        return load(outer, inner=inner)
    except MismatchError:
        # What a function makes is known once it has made it.
        if not inner or not (outer and isinstance(outer[0], AveragedModel)):
            raise
    return load(outer, inner=False)


def _load(
    opened: OpenManifest,
    factory: Factory,
    arguments: Mapping[str, Any],
    outer: list[Any],
    *,
    device: torch.device,
    part: str,
    mmap: bool,
    build: Literal["auto", "plain"],
    choice: Choice,
    verify: bool,
    inner: bool,
) -> Built:
    """Build the module; what the factory made is in *outer* afterwards, whatever happens."""
    chosen = begin_state(
        opened,
        part,
        choice,
        map_files=mmap and device.type == "cpu",
        verify=verify,
        inner=inner,
        device=device,
    )

    def make() -> torch.nn.Module:
        outer[:] = [factory(**arguments)]
        return unwrap(outer[0]) if isinstance(outer[0], torch.nn.Module) else outer[0]

    with _checking(chosen):
        state = chosen.state
        if not isinstance(state, Mapping):
            raise IntegrityError(
                f"{opened.where}, part {part!r}: a module's state should be a dict, and is a "
                f"{type(state).__qualname__}",
                ref=opened.head.ref,
            )
        if choice.dtype is not None:
            chosen.check()
            state = in_dtype(state, choice.dtype)
        built = build_module(
            make,
            state,
            device=device,
            metadata=getattr(state, "_metadata", None),
            what=f"part {part!r} of {opened.head.ref}",
            mode="plain" if chosen.is_partial else build,
            leave=chosen.leave,
            check=chosen.check,
        )
    outer[0].eval()
    if choice.dtype is not None:
        convert_module(outer[0], choice.dtype)
    if built.report:
        said = (
            f"{opened.head.ref}: not all of part {part!r} and {type(built.module).__qualname__} "
            f"came together; what has no saved value is as the class made it:\n{built.report}"
        )
        warn(KeysWarning(said, built.report))
    return Built(outer[0], built.plainly, built.report)


def _check_arguments(factory: object, build: object, *, verify: object) -> None:
    if isinstance(factory, torch.nn.Module) or not callable(factory):
        raise ArgumentError(
            f"{type(factory).__qualname__} is no class: pass the module's class (or a callable "
            "that builds it); "
            "to put the weights into a module you have, use checkpoint.restore(module)"
        )
    if build not in ("auto", "plain"):
        raise ArgumentError(f"build={build!r}: say 'auto' or 'plain'")
    if not isinstance(verify, bool):
        raise ArgumentError(f"verify={verify!r}: say True or False")


@contextmanager
def _checking(chosen: Chosen) -> Iterator[None]:
    """Let something be made of state that is still being checked, and see to it that it is.

    Raises:
        IntegrityError: Some of its bytes are not what was saved.
    """
    try:
        yield
        chosen.check()
    except Exception:
        # If what did not fit is damaged, that is what there is to say.
        chosen.check()
        raise
    finally:
        chosen.stop()


def _arguments(
    opened: OpenManifest, factory: Factory, name: str, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    if given is not None:
        return dict(given)
    info = next((info for info in opened.head.parts if info.name == name), None)
    # Those of an average are its module's.
    if info is not None and info.model_config is not None and not makes_average(factory):
        where = f"{opened.where}, model_config of part {name!r}"
        recorded = decode(info.model_config, where)
        if not isinstance(recorded, dict):
            raise IntegrityError(f"{where}: it should be a dict", ref=opened.head.ref)
        # They are the class's. Another callable may know some of them already, as a lambda does.
        return recorded if isinstance(factory, type) else accepted(factory, recorded)
    required = required_parameters(factory)
    if required:
        raise ArgumentError(
            f"{getattr(factory, '__qualname__', factory)} needs {', '.join(required)}, and "
            f"{opened.head.ref} has no "
            f"constructor arguments of part {name!r} on record: pass "
            f"model_config={{{required[0]!r}: …}}"
        )
    return {}
