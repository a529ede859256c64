"""``python -m tests.prove.parsers``: hostile input by the thousand; with ``--atheris``, guided."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.prove.parsers import memory
from tests.prove.parsers.hostile import (
    ENTRIES,
    READERS,
    hostile_entries,
    hostile_manifests,
    refused,
    sealed,
)
from tests.prove.parsers.packs import check, slots

HOW_TO_INSTALL = (
    "atheris is not installed: it needs CPython 3.11 to 3.13 on Linux, and is no dependency of "
    "ckptstore's; run\n\n    .venv/bin/python -m pip install atheris\n\nand then this again"
)


def main() -> int:
    """Print a table; return 1 if a reader raised what is no typed error, or took too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.parsers")
    parser.add_argument("--examples", type=int, default=20_000, help="of each kind")
    parser.add_argument("--atheris", action="store_true", help="fuzz, guided by coverage, instead")
    parser.add_argument("--seconds", type=int, default=300, help="how long to fuzz, each reader")
    parser.add_argument("--reader", choices=READERS, default="manifest", help="which is fuzzed")
    options = parser.parse_args()
    if options.atheris:
        return fuzz(options.reader, options.seconds)
    began, violations = time.monotonic(), []
    for what, strategy, work in (
        ("manifests", hostile_manifests(), lambda data: refused(READERS["manifest"], data)),
        ("journal entries", hostile_entries(), lambda data: refused(READERS["journal"], data)),
        ("store facts", hostile_entries(), lambda data: refused(READERS["store"], data)),
        ("packs, by safetensors", slots(), check),
    ):
        ends: Counter[str] = Counter()
        try:
            _run(strategy, work, options.examples, ends)
        except Exception as error:  # noqa: BLE001 - anything is a violation, and the rest goes on
            violations.append(f"{what}: {error!r}")
        _out(f"{what:28}{sum(ends.values()):>9,}  {dict(sorted(ends.items()))}")
    worst, count = 0.0, 0
    cases = [(READERS["manifest"], memory.manifests())]
    cases += [(READERS[name], memory.sealed_objects()) for name in ("journal", "store")]
    for reader, given_data in cases:
        for name, data in given_data:
            count += 1
            refused(reader, data)  # what is imported once is nobody's input
            used = memory.peak(reader, data)
            worst = max(worst, used / len(data) if len(data) > 10_000 else 0)
            if used > memory.allowed(data):
                violations.append(f"{name}: {used} bytes of memory for {len(data)}")
    _out(f"{'memory':28}{count:>9,}  at most {worst:.0f} bytes a byte of input")
    for violation in violations:
        _out(f"\nVIOLATION {violation}")
    _out(f"\n{len(violations)} violations in {time.monotonic() - began:.0f} s")
    return 1 if violations else 0


def _run(
    strategy: st.SearchStrategy[object],
    work: Callable[[object], object],
    examples: int,
    ends: Counter[str],
) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def each(value: object) -> None:
        ends["refused" if work(value) else "read"] += 1

    each()


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one reader, guided by the coverage of ``ckptstore.format`` alone: torch has no say."""
    if importlib.util.find_spec("atheris") is None:
        _out(HOW_TO_INSTALL)
        return 2
    atheris = importlib.import_module("atheris")
    modules = [each for each in sys.modules if each.startswith("ckptstore.format.")]
    for each in modules:
        # Their functions are instrumented where they are: a second import would be other classes.
        for value in vars(sys.modules[each]).values():
            if callable(value) and getattr(value, "__module__", "") == each:
                _instrument(atheris, value)
    seeds, reader = [sealed_seed(place) for place in range(len(ENTRIES))], READERS[name]

    def one(data: bytes) -> None:
        refused(reader, data)
        if name != "manifest":
            refused(reader, sealed(data.decode("utf-8", "replace")))
        else:
            refused(reader, _as_manifest(data))

    _out(f"fuzzing the {name} reader for {seconds} s, from {len(seeds)} seeds")
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096"], one)
    atheris.Fuzz()
    return 0


def _instrument(atheris: object, value: object) -> None:
    instrument = atheris.instrument_func  # type: ignore[attr-defined] # an optional package
    if isinstance(value, type):
        for method in vars(value).values():
            if hasattr(method, "__code__"):
                instrument(method)
    elif hasattr(value, "__code__"):
        instrument(value)


def sealed_seed(place: int) -> bytes:
    """Return a valid journal entry to begin from."""
    from ckptstore.format.journal import encode_entry

    return encode_entry(ENTRIES[place])


def _as_manifest(data: bytes) -> bytes:
    """Return a manifest whose only part's line is *data*, every digest holding."""
    line = data.decode("utf-8", "replace").replace("\n", " ") or "{}"
    return memory.manifest(memory.head(line), [line])


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
