"""Which keys of a module's saved state are loaded, and under which names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.errors import ArgumentError
from ckptstore.state.key_patterns import listed, matches, meant, patterns_of, per_part


@dataclass(frozen=True)
class Choice:
    """What ``only=``, ``skip=``, ``rename=``, ``strict=`` and ``dtype=`` say, checked.

    Attributes:
        only: Patterns of saved keys of which alone something is wanted; None for all.
        skip: Patterns of saved keys that are not wanted.
        rename: Pairs of a prefix in the saved keys and what it is in the module's, longest first.
        strict: Whether what does not fit is refused; else it is left out and reported.
        dtype: What floating tensors are converted to; ``"own"`` means to each one's own in the
            module; None for no conversion.
    """

    only: tuple[str, ...] | None = None
    skip: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    strict: bool = True
    dtype: Any = None

    @property
    def is_partial(self) -> bool:
        """Whether keys may be passed over on purpose."""
        return self.only is not None or bool(self.skip) or not self.strict

    def chooses(self, key: str) -> bool:
        """Say whether a saved key is wanted."""
        if self.only is not None and not any(matches(pattern, key) for pattern in self.only):
            return False
        return not any(matches(pattern, key) for pattern in self.skip)

    def renamed(self, key: str) -> str:
        """Return the name in the module of a saved key, or of a module that was saved."""
        for old, new in self.rename:
            if _begins(key, old):
                return new + key[len(old) :]
        return key

    def wanting(self, keys: Iterable[str]) -> Callable[[str], bool]:
        """Return what says whether a value was asked for of a name of the module's.

        Args:
            keys: All that were saved or left out.
        """
        if self.only is None and not self.skip:
            return lambda _: True
        origins: dict[str, list[str]] = {}
        for key in keys:
            origins.setdefault(self.renamed(key), []).append(key)

        def wants(name: str) -> bool:
            return any(map(self.chooses, origins.get(name) or self._could_be(name)))

        return wants

    def pick(self, keys: Sequence[str], what: str, left_out: Iterable[str] = ()) -> dict[str, str]:
        """Return the saved keys that are wanted, each with its name in the module.

        Args:
            keys: All that were saved.
            what: Names the state in errors.
            left_out: Keys that nobody saved.

        Raises:
            ArgumentError: A pattern or prefix fits no key, nothing is left to load, or two keys
                would have one name.
        """
        known = [*keys, *left_out]
        # Whatever strict says: what was asked for by a wrong name is a mistake and no misfit.
        self._check_patterns(known, what)
        picked = {key: self.renamed(key) for key in keys if self.chooses(key)}
        if keys and not picked:
            raise ArgumentError(
                f"{what}: only= and skip= leave nothing to load; it has {listed(keys)}"
            )
        owner: dict[str, str] = {}
        for key, name in picked.items():
            other = owner.setdefault(name, key)
            if other != key:
                raise ArgumentError(
                    f"rename=: {other!r} and {key!r} of {what} would both be {name!r}; "
                    "skip= one of them"
                )
        return picked

    def _check_patterns(self, known: Sequence[str], what: str) -> None:
        for option, patterns in (("only", self.only or ()), ("skip", self.skip)):
            for pattern in patterns:
                if not any(matches(pattern, key) for key in known):
                    raise ArgumentError(
                        f"{option}={pattern!r} fits no key of {what}{meant(pattern, known)}; it "
                        f"has {listed(known)}"
                    )
        for old, _ in self.rename:
            if not any(_begins(key, old) for key in known):
                raise ArgumentError(
                    f"rename=: no key of {what} begins with {old!r}{meant(old, known)}; it has "
                    f"{listed(known)}"
                )

    def _could_be(self, name: str) -> list[str]:
        """Return the saved keys that would have that name in the module."""
        keys = [name] + [old + name[len(new) :] for old, new in self.rename if _begins(name, new)]
        return [key for key in keys if self.renamed(key) == name]


EVERYTHING = Choice()


def choice_of(
    *,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    strict: bool = True,
    dtype: Any = None,
) -> Choice:
    """Return what was asked for, checked; *dtype* as it is.

    Raises:
        ArgumentError: A pattern is no text, there are none, or a prefix ends in a dot and what it
            becomes does not.
    """
    chosen = None if only is None else patterns_of("only", only)
    if chosen == ():
        raise ArgumentError("only=[] would load nothing: name keys, such as only='encoder.*'")
    if type(strict) is not bool:
        raise ArgumentError(f"strict= takes True or False, not {strict!r:.80}")
    return Choice(
        chosen, () if skip is None else patterns_of("skip", skip), _pairs(rename), strict, dtype
    )


@dataclass(frozen=True)
class KeyOptions:
    """What ``restore`` and ``resume`` were told about the keys of modules, as it was given."""

    only: Any = None
    skip: Any = None
    rename: Any = None
    dtype: Any = None

    def by_part(self, modules: Sequence[str], *, strict: bool) -> dict[str, Choice]:
        """Return what is to be put back of each module part.

        Args:
            modules: Their names.
            strict: Whether what does not fit is refused.

        Raises:
            ArgumentError: Something makes no sense, or there is no module that it is about.
        """
        given = {"only": self.only, "skip": self.skip, "rename": self.rename, "dtype": self.dtype}
        asked = [name for name, value in given.items() if value is not None]
        if asked and not modules:
            raise ArgumentError(f"{asked[0]}= is about the keys of modules, and none was given")
        only = per_part("only", self.only, modules)
        skip = per_part("skip", self.skip, modules)
        of_parts = isinstance(self.rename, Mapping) and all(
            isinstance(value, Mapping) for value in self.rename.values()
        )
        rename = per_part("rename", self.rename, modules) if of_parts else lambda _: self.rename
        return {
            name: choice_of(
                only=only(name),
                skip=skip(name),
                rename=rename(name),
                strict=strict,
                dtype=check_own(self.dtype),
            )
            for name in modules
        }


NO_OPTIONS = KeyOptions()


def check_own(dtype: object) -> str | None:
    """Return ``dtype=`` of ``restore`` and ``resume``, checked.

    Raises:
        ArgumentError: It is neither None nor ``"own"``.
    """
    if dtype is None or dtype == "own":
        return None if dtype is None else "own"
    raise ArgumentError(
        f"dtype={dtype!r:.80}: a module that is there keeps its dtypes. dtype='own' converts what "
        "was saved to them; to have the module in another dtype, convert it first (module.to(…))"
    )


def named_anew(state: Mapping[Any, Any], names: Mapping[str, str], choice: Choice) -> Any:
    """Return a state dict under the module's names, its metadata too."""
    if not choice.rename:
        return state
    renamed: OrderedDict[Any, Any] = OrderedDict(
        (names.get(key, key), value) for key, value in state.items()
    )
    metadata = getattr(state, "_metadata", None)
    if isinstance(metadata, Mapping):
        # Metadata stand under modules' names, which are prefixes without their dot.
        renamed._metadata = OrderedDict(  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
            (choice.renamed(f"{key}." if key else key).removesuffix("."), value)
            for key, value in metadata.items()
        )
    return renamed


def _begins(key: str, prefix: str) -> bool:
    """Say whether a key is a prefix, or begins with it where a name begins."""
    return key.startswith(prefix) and (
        len(key) == len(prefix) or not prefix or prefix.endswith(".") or key[len(prefix)] == "."
    )


def _pairs(rename: object) -> tuple[tuple[str, str], ...]:
    if rename is None:
        return ()
    if not isinstance(rename, Mapping) or not all(
        isinstance(each, str) for pair in rename.items() for each in pair
    ):
        raise ArgumentError(
            "rename= takes a dict of prefixes as saved to prefixes in the module, such as "
            f"{{'backbone.': 'encoder.'}}, not {rename!r:.80}"
        )
    for old, new in rename.items():
        if _ends_a_name(old) != _ends_a_name(new):
            raise ArgumentError(
                f"rename={{{old!r}: {new!r}}}: one ends with a dot (or is empty) and the other "
                "does not, so the names would run together"
            )
    return tuple(sorted(rename.items(), key=lambda pair: -len(pair[0])))


def _ends_a_name(prefix: str) -> bool:
    return not prefix or prefix.endswith(".")
