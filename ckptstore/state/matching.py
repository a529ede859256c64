"""Which saved state of an optimizer belongs to which parameter: by name, else by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ckptstore.state.modules import CHECKPOINTED
from ckptstore.state.optimizers import Groups, aliases, given_names

# What wrappers add to the names of what they hold (:func:`ckptstore.state.modules.inner_name`).
_WRAPPERS = frozenset({"module", "_orig_mod", CHECKPOINTED})
_GIVEN = ""  # the scope of names that an optimizer was given


@dataclass(frozen=True)
class Parameter:
    """A parameter of an optimizer by the names that are known of it.

    Attributes:
        number: Counted through all groups.
        of_modules: Its names ``part/key`` in modules; several if it is tied or modules share it.
        given: The name that the optimizer was given it with.
        bare: That name without the components of wrappers.
    """

    number: int
    of_modules: tuple[str, ...] = ()
    given: str | None = None
    bare: str | None = None


@dataclass(frozen=True)
class Match:
    """Which saved parameter each present one is.

    Attributes:
        saved_of: By the number of a present parameter, that of the saved one.
        lacking: Present parameters that no state was saved for, by number, and what to call them.
        unused: Saved ones that the optimizer lacks, by number, and what to call them.
        problems: What keeps the groups from each other, a sentence each.
    """

    saved_of: dict[int, int] = field(default_factory=dict)
    lacking: dict[int, str] = field(default_factory=dict)
    unused: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


Parameters = Sequence[Sequence[Parameter]]
_Spelling = Callable[[Parameter], tuple[str, ...]]


def present_parameters(
    optimizer: torch.optim.Optimizer, modules: Mapping[str, torch.nn.Module]
) -> Parameters:
    """Return an optimizer's parameters by group, under all the names that they have now."""
    known = aliases(modules)
    numbers = iter(range(sum(len(group["params"]) for group in optimizer.param_groups)))
    return [
        [
            Parameter(next(numbers), known.get(id(parameter), ()), name, _bare(name))
            for parameter, name in zip(group["params"], given, strict=True)
        ]
        for group, given in zip(
            optimizer.param_groups, given_names(optimizer.param_groups), strict=True
        )
    ]


def saved_parameters(
    recorded: Groups | None,
    given: Groups,
    renamed: Callable[[str | None, str], str] = lambda _, key: key,
) -> Parameters:
    """Return an optimizer's parameters by group, under the names that were recorded of them.

    Args:
        recorded: The names in the part's line; None if there are none.
        given: The names in the groups of the saved state.
        renamed: Returns what a key is called now that was saved in a part; without a part, what a
            name is that the optimizer was given.
    """
    numbers = iter(range(sum(map(len, given))))
    return [
        [_saved(next(numbers), name, own, renamed) for name, own in zip(names, owns, strict=True)]
        for names, owns in zip(recorded or given, given, strict=True)
    ]


def _saved(
    number: int, recorded: str | None, given: str | None, renamed: Callable[[str | None, str], str]
) -> Parameter:
    part, slash, key = (recorded or "").partition("/")
    of_module = bool(slash) and recorded != given
    if recorded is not None and not of_module:
        given = recorded
    return Parameter(
        number,
        (f"{part}/{renamed(part, key)}",) if of_module else (),
        None if given is None else renamed(None, given),
        None if given is None else renamed(None, _bare(given) or given),
    )


def match(saved: Parameters, present: Parameters) -> Match:
    """Say which saved parameter each present one is.

    By name where both are known by one, in a common namespace: that of modules
    (``model/fc.weight``), that of the names the optimizer was given (``fc.weight``), or the
    modules' without the part. Those that no name tells go by position, among themselves in each
    group. One whose name the other side would have to know, and does not, is paired with nothing.

    Args:
        saved: By group.
        present: By group.
    """
    one, other = list(_flat(saved)), list(_flat(present))
    spellings = list(_spellings(one, other))
    found = [_by_name(_named(one, mine), _named(other, its)) for mine, its in spellings]
    best = max(range(len(found)), key=lambda index: len(found[index]))
    mine, its = _Names(one, spellings[best][0]), _Names(other, spellings[best][1])
    result = Match(dict(found[best]))
    if len(saved) != len(present):
        problem = (
            f"{len(saved)} parameter groups were saved, and this optimizer has {len(present)}: "
            "build it with those groups, or leave it out, and it begins anew"
        )
        result.problems.append(problem)
        result.lacking.update(_strangers(other, its, mine, result.saved_of))
        result.unused.update(_strangers(one, mine, its, result.saved_of.values()))
        return result
    result.problems.extend(_moved(saved, present, result.saved_of, mine, its))
    for index, (before, now) in enumerate(zip(saved, present, strict=True)):
        taken = set(result.saved_of.values())
        left = [each for each in before if each.number not in taken]
        free = [each for each in now if each.number not in result.saved_of]
        _pair_by_position(index, left, free, mine, its, result)
    return result


class _Names:
    """What a side's parameters are called in a namespace, each name once."""

    def __init__(self, parameters: Sequence[Parameter], spelling: _Spelling) -> None:
        self._names = _named(parameters, spelling)
        self._scopes = {
            each.number: {
                name.partition("/")[0] if name in each.of_modules else _GIVEN
                for name in self._names[each.number]
            }
            for each in parameters
        }
        self._all_scopes = set().union(*self._scopes.values())

    def name(self, parameter: Parameter) -> str:
        """Return what to call a parameter in a message."""
        names = self._names[parameter.number]
        return repr(names[0]) if names else f"parameter {parameter.number}, which has no name"

    def is_known_to(self, other: _Names, parameter: Parameter) -> bool:
        """Say whether the other side has such names, so that this one, too, would be among them."""
        return bool(self._scopes[parameter.number] & other._all_scopes)

    def is_of_module(self, parameter: Parameter) -> bool:
        """Say whether it goes by the name that it has in a module."""
        return bool(self._scopes[parameter.number] - {_GIVEN})


def _pair_by_position(  # noqa: PLR0917 - two sides, each with its names
    index: int,
    saved: list[Parameter],
    present: list[Parameter],
    mine: _Names,
    its: _Names,
    result: Match,
) -> None:
    """Pair what no name told, in the order of the group; and list what can't be paired."""
    contradicts = any(map(mine.is_of_module, saved)) and any(map(its.is_of_module, present))
    left = [
        each
        for each in saved
        if not mine.is_known_to(its, each) and not (contradicts and mine.is_of_module(each))
    ]
    free = [
        each
        for each in present
        if not its.is_known_to(mine, each) and not (contradicts and its.is_of_module(each))
    ]
    if left and free and len(left) != len(free):
        result.problems.append(
            f"group {index}: no name tells which {len(left)} of the saved parameters are which "
            f"{len(free)} of this optimizer's"
        )
        return
    if left and free:
        pairs = zip(free, left, strict=True)
        result.saved_of.update((each.number, other.number) for each, other in pairs)
    taken = set(result.saved_of.values())
    result.lacking.update(
        (each.number, its.name(each)) for each in present if each.number not in result.saved_of
    )
    result.unused.update(
        (each.number, mine.name(each)) for each in saved if each.number not in taken
    )


def _strangers(
    parameters: Iterable[Parameter], names: _Names, others: _Names, taken: Collection[int]
) -> dict[int, str]:
    """Return those that the other side would know by name, and does not."""
    return {
        each.number: names.name(each)
        for each in parameters
        if each.number not in taken and names.is_known_to(others, each)
    }


def _moved(
    saved: Parameters, present: Parameters, saved_of: Mapping[int, int], mine: _Names, its: _Names
) -> Iterator[str]:
    """Say which parameters are in another group than they were in."""
    taken = set(saved_of.values())
    for index, (before, now) in enumerate(zip(saved, present, strict=True)):
        had = [each for each in before if each.number in taken]
        has = [each for each in now if each.number in saved_of]
        if {each.number for each in had} != {saved_of[each.number] for each in has}:
            yield (
                f"group {index} had other parameters: {_listed(map(mine.name, had))}; "
                f"now {_listed(map(its.name, has))}"
            )


def _spellings(
    saved: Sequence[Parameter], present: Sequence[Parameter]
) -> Iterator[tuple[_Spelling, _Spelling]]:
    """Yield the namespaces in which both sides may be compared, the best first."""
    yield _full, _full
    yield _full_bare, _full_bare
    if not (any(each.of_modules for each in saved) and any(each.of_modules for each in present)):
        # Otherwise they are comparable as they are.
        yield _keys, _full
        yield _full, _keys
        yield _given, _given
        yield _keys_bare, _keys_bare
        yield _given_bare, _given_bare


def _full(parameter: Parameter) -> tuple[str, ...]:
    return parameter.of_modules or _given(parameter)


def _full_bare(parameter: Parameter) -> tuple[str, ...]:
    return parameter.of_modules or _given_bare(parameter)


def _keys(parameter: Parameter) -> tuple[str, ...]:
    return _without_part(parameter) or _given(parameter)


def _keys_bare(parameter: Parameter) -> tuple[str, ...]:
    return _without_part(parameter) or _given_bare(parameter)


def _given(parameter: Parameter) -> tuple[str, ...]:
    return () if parameter.given is None else (parameter.given,)


def _given_bare(parameter: Parameter) -> tuple[str, ...]:
    return () if parameter.bare is None else (parameter.bare,)


def _without_part(parameter: Parameter) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.partition("/")[2] for name in parameter.of_modules))


def _named(parameters: Iterable[Parameter], spelling: _Spelling) -> dict[int, tuple[str, ...]]:
    """Return each parameter's names, but none that two have: it tells nothing."""
    spelled = {each.number: spelling(each) for each in parameters}
    times = Counter(name for names in spelled.values() for name in names)
    return {
        number: tuple(name for name in names if times[name] == 1)
        for number, names in spelled.items()
    }


def _by_name(
    saved: Mapping[int, tuple[str, ...]], present: Mapping[int, tuple[str, ...]]
) -> dict[int, int]:
    owner = {name: number for number, names in saved.items() for name in names}
    found: dict[int, int] = {}
    for number, names in present.items():
        known = [owner[name] for name in names if name in owner]
        if known:
            found[number] = known[0]
    return found


def _bare(name: str | None) -> str | None:
    if name is None:
        return None
    return ".".join(each for each in name.split(".") if each not in _WRAPPERS) or name


def _flat(groups: Parameters) -> Iterator[Parameter]:
    for group in groups:
        yield from group


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return f"[{', '.join(names[:5])}{', …' if len(names) > 5 else ''}]"  # noqa: PLR2004 - enough to recognise the group
