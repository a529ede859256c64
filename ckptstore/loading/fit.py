"""Whether a module fits saved state: every mismatch at once, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptstore.errors import MismatchError
from ckptstore.format.part import Form
from ckptstore.key_report import KeyReport
from ckptstore.loading.tensors import form, kind, place, same_bits
from ckptstore.state.modules import plain_names
from ckptstore.state.tensors import dtype_name

ADVICE = (
    "Were other constructor arguments used in training? Pass them: model_config={...}, by "
    "parameter name. Nothing was loaded."
)
_LOAD_HOOKS = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
_EXTRA_STATE = "_extra_state"


NOTHING_LEFT = KeyReport()


@dataclass(frozen=True)
class Leave:
    """What of a module may stay as it is, because it was not asked for or nobody saved it.

    Attributes:
        wants: Says whether a value was asked for of a name of the module's (a plain one).
        left_out: Plain names that nobody saved, on purpose, and what they were, if known.
        strict: Whether anything that does not fit is refused; else it is left and reported.
        converts: Whether a dtype may be another than in the training.
    """

    wants: Callable[[str], bool]
    left_out: Mapping[str, Form | None] = field(default_factory=dict)
    strict: bool = True
    converts: bool = False


@dataclass(frozen=True)
class Fit:
    """How a module's own state dict and a saved one go together.

    Attributes:
        own: The module's own objects by state-dict name, in its order.
        adopted: Names whose saved tensors the module can take as they are.
        unsettled: Names that only the module's own loading code can bring together: missing,
            unexpected or of another shape, in the reach of such code.
        left_out: Names that get no saved value: the module itself leaves them out of its state
            dict, or they may be left (:class:`Leave`). What they name stays as it is.
        custom: Prefixes of the modules that load in their own way (``""`` is the whole).
        dropped: Names of saved values that are not used.
        report: What was left, as far as it is known before the module's own loading code ran.
        is_partial: Whether more may be left than the module itself leaves out.
        is_strict: Whether what does not fit is refused.
        converted: The dtypes of saved tensors for which the module has another, sorted.
    """

    own: Mapping[str, object]
    adopted: tuple[str, ...]
    unsettled: tuple[str, ...]
    left_out: tuple[str, ...]
    custom: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    report: KeyReport = NOTHING_LEFT
    is_partial: bool = False
    is_strict: bool = True
    converted: tuple[str, ...] = ()

    def is_custom(self, name: str) -> bool:
        """Say whether a module's own loading code decides about that name."""
        return name.startswith(self.custom)


def fit(
    module: torch.nn.Module,
    state: Mapping[str, object],
    what: str,
    leave: Leave | None = None,
    *,
    in_place: bool = False,
    check: Callable[[], object] = bool,
) -> Fit:
    """Compare a module with saved state, by names and shapes.

    Args:
        module: On the CPU.
        state: As saved, by state-dict name.
        what: Names the saved state in errors.
        leave: What may stay as it is; None for nothing but what the module leaves out itself.
        in_place: Whether values are to be copied into the module's own tensors, which then have to
            be of the same layout or class.
        check: Is called before anything looks at saved values.

    Raises:
        MismatchError: They don't fit; it lists every mismatch.
    """
    custom = tuple(
        prefix for prefix, child in _modules(module) if _loads_its_own_way(child, prefix, state)
    )
    if overrides(module, "load_state_dict") and "" not in custom:
        custom = ("", *custom)  # torch calls the whole's only, never a submodule's
    own = _own(module, custom)
    left = _Left(module, own, state, leave)
    problems: list[str] = [] if leave is None else left.check_left_out(leave, custom)
    unsettled: list[str] = []
    adopted: list[str] = []
    for name in [*own, *(name for name in state if name not in own)]:
        if name in left.names:
            continue
        problem = _problem(name, own, state, in_place=in_place)
        if problem is None:
            if isinstance(own[name], torch.Tensor) and not (
                _is_extra_state(name) or name.startswith(custom)
            ):
                adopted.append(name)
        elif name.startswith(custom):
            unsettled.append(name)
        elif leave is None or leave.strict:
            problems.append(problem)
        else:
            left.drop(name)
    problems += _broken_ties(own, state, adopted, check)
    if problems:
        raise mismatch(module, what, problems)
    return Fit(
        own,
        tuple(adopted),
        tuple(unsettled),
        tuple(left.names),
        custom,
        tuple(left.dropped),
        left.report(adopted),
        leave is not None,
        leave is None or leave.strict,
        tuple(sorted(_other_dtypes(own, state, left.names))),
    )


class _Left:
    """What of a module gets no saved value, and what of the saved values is not used."""

    def __init__(
        self,
        module: torch.nn.Module,
        own: Mapping[str, Any],
        state: Mapping[str, object],
        leave: Leave | None,
    ) -> None:
        missing = [name for name in own if name not in state]
        # What is in neither state dict is meant to be in none.
        meant = set(module.state_dict()) if missing else set()
        self.names = dict.fromkeys(name for name in missing if name not in meant)
        self.dropped: list[str] = []
        self._own = own
        self._plain = plain_names(module)
        self._missing: list[str] = []
        self._not_saved: list[str] = []
        self._unexpected: list[str] = []
        self._mismatched: list[str] = []
        self._lacking: list[str] = []
        for name in missing:
            if leave is None or name in self.names:
                continue
            plain = self._plain(name)
            if leave.wants(plain):
                if plain not in leave.left_out and leave.strict:
                    continue
                (self._not_saved if plain in leave.left_out else self._missing).append(name)
            self.names[name] = None

    def check_left_out(self, leave: Leave, custom: tuple[str, ...]) -> list[str]:
        """Compare what nobody saved with what the module has instead.

        Returns:
            Why that is something else, where that is refused; otherwise it is reported.
        """
        problems: list[str] = []
        for name in list(self._not_saved):
            form = leave.left_out[self._plain(name)]
            problem = None if name.startswith(custom) else _another(self._own[name], form, leave)
            if problem is not None:
                problems.append(f"{name!r} {problem}")
                self._not_saved.remove(name)
                self._mismatched.append(name)
        there = set(map(self._plain, self._own))
        for key, form in leave.left_out.items():
            if key not in there and leave.wants(key) and not key.startswith(custom):
                was = "" if form is None else f" ({form})"
                problems.append(f"{key!r}{was} was left out of the save, and is not in the module")
                self._lacking.append(key)
        return problems if leave.strict else []

    def drop(self, name: str) -> None:
        """Leave a saved value unused that does not fit."""
        self.dropped.append(name)
        if name in self._own:
            self.names[name] = None
            self._mismatched.append(name)
        else:
            self._unexpected.append(name)

    def report(self, adopted: list[str]) -> KeyReport:
        """Return what was left, without what gets its value by another name."""
        own = self._own
        taken = {place(own[name]) for name in adopted}

        def said(names: list[str]) -> tuple[str, ...]:
            return tuple(
                self._plain(name)
                for name in names
                if not (isinstance(own.get(name), torch.Tensor) and place(own[name]) in taken)
            )

        return KeyReport(
            said(self._missing),
            (*said(self._unexpected), *self._lacking),
            said(self._mismatched),
            said(self._not_saved),
        )


def mismatch(module: torch.nn.Module, what: str, problems: list[str]) -> MismatchError:
    """Return the error that lists what keeps a module from taking saved state."""
    return MismatchError(f"{type(module).__qualname__} does not fit {what}", problems, ADVICE)


def overrides(module: torch.nn.Module, *names: str) -> bool:
    """Say whether a module has its own version of any of these methods of ``torch.nn.Module``."""
    return any(
        getattr(getattr(module, name, None), "__func__", None) is not getattr(torch.nn.Module, name)
        for name in names
    )


def prefixes(module: torch.nn.Module, test: Callable[[torch.nn.Module], bool]) -> tuple[str, ...]:
    """Return the prefixes of the submodules, itself included, that pass a test."""
    return tuple(prefix for prefix, child in _modules(module) if test(child))


def _modules(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, child in module.named_modules(remove_duplicate=False):
        yield (f"{name}." if name else ""), child


def _loadable(module: torch.nn.Module) -> Iterator[tuple[str, object]]:
    """Yield what torch's own loading code looks for, by name, whatever the module saves."""
    for prefix, child in _modules(module):
        unsaved = child._non_persistent_buffers_set  # noqa: SLF001 - as torch loads
        for table in (child._parameters, child._buffers):  # noqa: SLF001 - as above
            for name, tensor in table.items():
                if tensor is not None and name not in unsaved:
                    yield f"{prefix}{name}", tensor
        if overrides(child, "set_extra_state"):
            yield f"{prefix}{_EXTRA_STATE}", None


def _own(module: torch.nn.Module, custom: tuple[str, ...]) -> dict[str, object]:
    """Return what a module's loading code may look for, by name, in the order of its state dict.

    That is what torch's own code does; and, where the module has its own, whatever it saves.
    """
    loadable = dict(_loadable(module))
    # By the base class: an overridden state_dict() may give anything.
    saves: dict[str, object] = torch.nn.Module.state_dict(module, keep_vars=True)
    own = {
        name: value for name, value in saves.items() if name in loadable or name.startswith(custom)
    }
    return own | {name: value for name, value in loadable.items() if name not in own}


def _loads_its_own_way(module: torch.nn.Module, prefix: str, state: Mapping[str, object]) -> bool:
    if any(vars(module).get(hooks) for hooks in _LOAD_HOOKS):
        return True
    return overrides(module, "_load_from_state_dict") and not _is_settled_norm(
        module, prefix, state
    )


def _is_settled_norm(module: torch.nn.Module, prefix: str, state: Mapping[str, object]) -> bool:
    """Say whether a batch or instance norm's own loading code has nothing to do.

    A batch norm's adds the count that versions before torch 0.4.1 did not save; an instance norm's
    also words the error about statistics that it has no use for (torch/nn/modules/batchnorm.py,
    instancenorm.py). So with the count there, names and shapes must fit as anyone's.
    """
    norms = torch.nn.modules.batchnorm._NormBase, torch.nn.modules.instancenorm._InstanceNorm  # noqa: SLF001 - no other name
    loads = getattr(module._load_from_state_dict, "__func__", None)  # noqa: SLF001 - as torch calls it
    return any(loads is norm._load_from_state_dict for norm in norms) and (  # noqa: SLF001 - its own
        getattr(module, "num_batches_tracked", None) is None
        or f"{prefix}num_batches_tracked" in state
    )


def _is_extra_state(name: str) -> bool:
    return name.rpartition(".")[2] == _EXTRA_STATE


def _problem(
    name: str, own: Mapping[str, Any], state: Mapping[str, Any], *, in_place: bool
) -> str | None:
    if name not in state:
        return f"{name!r} ({_form(own[name])}) is in the module, and was not saved"
    if name not in own:
        why = (
            "the module has no set_extra_state() to take it"
            if _is_extra_state(name)
            else "is not in the module"
        )
        return f"{name!r} ({_form(state[name])}) was saved, and {why}"
    if _is_extra_state(name):  # what it is, is the business of set_extra_state()
        return None
    expected, found = own[name], state[name]
    if isinstance(expected, torch.Tensor) != isinstance(found, torch.Tensor) or (
        isinstance(expected, torch.Tensor)
        and not is_lazy(expected)
        and (expected.shape != found.shape or (in_place and form(expected) != form(found)))
    ):
        mine, saved = _form(expected), _form(found)
        if mine == saved:
            mine, saved = form(expected), form(found)
        return f"{name!r} is {mine} in the module, and was saved as {saved}"
    return None


def _another(own: object, form: Form | None, leave: Leave) -> str | None:
    """Say what a module's tensor is and was, if it is another than in the training."""
    if form is None or (isinstance(own, torch.Tensor) and is_lazy(own)):
        return None
    if not isinstance(own, torch.Tensor):
        return f"is {_form(own)} in the module, and was {form} when the save left it out"
    mine = Form(dtype_name(own.dtype), tuple(own.shape))
    if mine.shape == form.shape and (leave.converts or mine.dtype == form.dtype):
        return None
    return f"is {mine} in the module, and was {form} when the save left it out"


def _other_dtypes(
    own: Mapping[str, Any], state: Mapping[str, Any], left: Container[str]
) -> set[str]:
    both = [(mine, state[name]) for name, mine in own.items() if name in state and name not in left]
    return {
        dtype_name(saved.dtype)
        for mine, saved in both
        if isinstance(mine, torch.Tensor)
        and isinstance(saved, torch.Tensor)
        and mine.dtype != saved.dtype
    }


def _broken_ties(
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    names: list[str],
    check: Callable[[], object],
) -> Iterator[str]:
    first: dict[tuple[object, ...], str] = {}
    for name in names:
        if own[name].numel() == 0:
            continue
        other = first.setdefault(place(own[name]), name)
        if state[other] is state[name]:
            continue
        check()
        if not same_bits(state[other], state[name]):
            yield (
                f"{other!r} and {name!r} are one tensor in the module, "
                "and were saved as two that differ"
            )


def _form(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a value of type {type(value).__qualname__}"
    if is_lazy(value):
        return "lazy"
    more = kind(value)
    return f"shape {list(value.shape)}{', ' if more else ''}{more}"
