"""Learning rate schedulers: their state without the functions of the script, and what it fits.

A scheduler's state is its attributes. Functions among them (what ``LambdaLR`` was given) stay the
script's; of callable objects torch keeps the attributes.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType
from typing import Any

from torch.optim import Optimizer, lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler

from ckptstore.errors import UnsupportedValueError
from ckptstore.state.callables import has_slots, holders
from ckptstore.state.modules import class_name

# Where torch's schedulers keep what they call: a list of callables, and a single one.
FUNCTIONS = "lr_lambdas"
FUNCTION = "_scale_fn_custom"
CHILDREN = "_schedulers"
BASE = "base_lrs"
PHASES = "_schedule_phases"
# What torch computes from arguments and keeps instead of them: CyclicLR and OneCycleLR.
_COMPUTED = frozenset({"total_size", "step_ratio", PHASES, "_anneal_func_type"})
# Where a scheduler is, and an argument that later versions of torch have no more.
_NO_HYPERPARAMETERS = frozenset({"optimizer", "last_epoch", "verbose"})
# What has no state of its own; of what is behind it, see refuse_hidden_state(). torch takes the
# first alone for a function: it asks a builtin for its __dict__, which it has not, and keeps what
# functools.wraps left on a cached one.
_STATELESS = (
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    MethodWrapperType,
    functools.partial,
    functools._lru_cache_wrapper,  # noqa: SLF001 - the type of what lru_cache returns has no other name
    type,
)


def scheduler_state(scheduler: LRScheduler) -> Any:
    """Return a scheduler's ``state_dict()``, functions of every kind left out.

    Args:
        scheduler: torch's own, or of a class that says for itself what its state is.
    """
    return _without_functions(scheduler).state_dict()


def refuse_hidden_state(scheduler: LRScheduler, path: str, parts: Iterable[object] = ()) -> None:
    """See that nothing with state is behind a scheduler that its own state has not.

    Args:
        scheduler: As for :func:`scheduler_state`.
        path: Names it in errors.
        parts: What is saved with it: what has its state there may be behind anything.

    Raises:
        UnsupportedValueError: A callable object's state lies where torch does not look for it, or
            the scheduler holds another one.
    """
    known = {id(part) for part in parts}
    for name, function in _all_functions(scheduler):
        for held, holder in holders(function):
            if id(holder) in known:
                continue
            where, kind = f"{path}/{name}", class_name(holder)
            if held:
                raise UnsupportedValueError(
                    where,
                    f"a {kind} {held}, whose attributes are in no scheduler's state",
                    "pass an object with a __call__ (its attributes are kept) or a plain function, "
                    "or hand the object to save() and resume() as a part, with a state_dict() and "
                    "a load_state_dict()",
                )
            if has_slots(holder):
                raise UnsupportedValueError(
                    where,
                    f"a {kind} whose state is in __slots__",
                    "give its class no __slots__, or hand it to save() and resume() as a part, "
                    "with a state_dict() and a load_state_dict()",
                )
    if not is_torchs(type(scheduler)):
        _refuse_held_schedulers(scheduler, path)


def _refuse_held_schedulers(scheduler: LRScheduler, path: str) -> None:
    state: Any = scheduler.state_dict()
    for name, value in state.items() if isinstance(state, Mapping) else ():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, (LRScheduler, Optimizer)):
                mine = type(scheduler).__qualname__
                raise UnsupportedValueError(
                    f"{path}/{name}",
                    f"the {class_name(each)} that a {mine} holds",
                    f"a scheduler's state_dict() gives all its attributes: give {mine} one of its "
                    f"own, with {name}.state_dict() in place of {name}, and a load_state_dict() "
                    "that hands it on",
                )


def functions(scheduler: LRScheduler) -> dict[str, Any]:
    """Return what a scheduler calls, by its place in the state; its children's not."""
    attributes = vars(scheduler)
    return _by_place(attributes.get(FUNCTIONS), attributes.get(FUNCTION))


def function_states(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the attributes that a state has of callable objects, named as :func:`functions`."""
    found = _by_place(state.get(FUNCTIONS), state.get(FUNCTION))
    return {name: kept for name, kept in found.items() if isinstance(kept, Mapping)}


def _by_place(several: Any, one: Any) -> dict[str, Any]:
    listed = several if isinstance(several, (list, tuple)) else ()
    found = {f"{FUNCTIONS}/{index}": each for index, each in enumerate(listed)}
    return found if one is None else found | {FUNCTION: one}


def _all_functions(scheduler: LRScheduler) -> Iterator[tuple[str, Any]]:
    if is_torchs(type(scheduler)):
        yield from functions(scheduler).items()
        for index, child in enumerate(vars(scheduler).get(CHILDREN, ())):
            for name, function in _all_functions(child):
                yield f"{CHILDREN}/{index}/{name}", function


def scheduler_problems(scheduler: LRScheduler, state: Any) -> list[str]:
    """Say what keeps a saved state from a scheduler, which would take anything.

    torch copies attributes: those of another kind of scheduler, or for more parameter groups, are
    noticed a step later, or never.
    """
    return list(_problems(scheduler, state, "")) if is_torchs(type(scheduler)) else []


def argument_keys(kind: type, keys: Iterable[str]) -> set[str]:
    """Return those keys of a state that hold arguments of the class: its hyperparameters.

    By name: an argument ``max_lr`` may be kept as ``max_lr``, ``_max_lr`` or ``max_lrs``.
    """
    names = _arguments(kind)
    return {
        key
        for key in keys
        if names & {key.lstrip("_"), key.lstrip("_").removesuffix("s")}
        or (key in _COMPUTED and is_torchs(kind))
    }


def is_torchs(kind: type) -> bool:
    """Say whether a scheduler's class is one of torch's own, whose state is known."""
    return kind.__module__.startswith("torch.optim")


def _arguments(kind: type) -> frozenset[str]:
    """Return the names of a class's constructor arguments, those of its bases included."""
    return frozenset(
        name
        for base in inspect.getmro(kind)
        if "__init__" in vars(base) and base is not object
        for name in inspect.signature(base).parameters
        if name not in _NO_HYPERPARAMETERS
    )


@functools.cache
def _all_arguments() -> frozenset[str]:
    """Return the names of the arguments of all of torch's schedulers."""
    kinds = [*vars(lr_scheduler).values(), swa_utils.SWALR]
    return frozenset().union(
        *(
            _arguments(kind)
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, LRScheduler)
        )
    )


def _without_functions(scheduler: LRScheduler) -> LRScheduler:
    """Return a shallow copy in which each callable without state is a plain function.

    Of a plain function torch keeps nothing.
    """
    if not is_torchs(type(scheduler)):
        return scheduler
    twin = copy.copy(scheduler)
    attributes = vars(twin)
    if FUNCTIONS in attributes:
        attributes[FUNCTIONS] = [_known(function) for function in attributes[FUNCTIONS]]
    if attributes.get(FUNCTION) is not None:
        attributes[FUNCTION] = _known(attributes[FUNCTION])
    if CHILDREN in attributes:
        attributes[CHILDREN] = [_without_functions(child) for child in attributes[CHILDREN]]
    return twin


def _known(function: Any) -> Any:
    stateless = isinstance(function, _STATELESS) or not hasattr(function, "__dict__")
    return _nothing if stateless else function


def _nothing(_: int) -> float:
    return 1.0


def _problems(scheduler: LRScheduler, state: Any, path: str) -> Iterator[str]:
    if not isinstance(state, Mapping):
        yield f"{path}its state is a {type(state).__qualname__}, and should be a dict"
        return
    mine = _without_functions(scheduler).state_dict()
    # Another torch may keep more or less, but no argument of another class.
    lacking = [key for key in argument_keys(type(scheduler), mine) if key not in state]
    foreign = [key for key in state if key not in mine and key in _all_arguments()]
    if lacking or foreign:
        yield (
            f"{path}another kind of scheduler than {type(scheduler).__qualname__} was saved: "
            f"its state has {', '.join(sorted(map(str, state)))}"
        )
        return
    for key in (BASE, CHILDREN, FUNCTIONS):
        saved, now = state.get(key), mine.get(key)
        fitting = {len(now)} if now is not None else set()
        if key == BASE:  # one may have been added for a group that the optimizer got later
            fitting.add(len(scheduler.optimizer.param_groups))
        if now is not None and not (isinstance(saved, list) and len(saved) in fitting):
            had = len(saved) if isinstance(saved, list) else "no"
            yield f"{path}{key} had {had} entries, and has {len(now)} here"
            return
    present = function_states(mine)
    for name, kept in _by_place(state.get(FUNCTIONS), state.get(FUNCTION)).items():
        if kept is not None and not isinstance(kept, Mapping):
            yield f"{path}{name} is a {type(kept).__qualname__}, and should be a dict"
        elif kept and name not in present:
            yield (
                f"{path}{name} was an object with {', '.join(sorted(map(str, kept)))}, and is a "
                "function here"
            )
    for index, child in enumerate(getattr(scheduler, CHILDREN, ())):
        yield from _problems(child, state[CHILDREN][index], f"{path}{CHILDREN}/{index}: ")
