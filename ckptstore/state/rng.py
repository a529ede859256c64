"""The random generators training draws from: Python's, NumPy's, torch's CPU and CUDA ones."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def capture() -> dict[str, Any]:
    """Return the state of every generator in use, as a tree of plain values.

    NumPy's is there if NumPy was imported; CUDA's, one per device, if CUDA was initialised.
    """
    state: dict[str, Any] = {"python": python_state(), "torch": _to_bytes(torch.get_rng_state())}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        saved = numpy.random.get_state(legacy=False)
        if saved["bit_generator"] == "MT19937":
            state["numpy"] = {
                "name": "MT19937",
                "keys": saved["state"]["key"].astype("<u4").tobytes(),
                "position": int(saved["state"]["pos"]),
                "has_gauss": int(saved["has_gauss"]),
                "cached_gaussian": float(saved["gauss"]),
            }
        # After numpy.random.set_bit_generator() the global state is that object's own, and whoever
        # set it holds it: numpy.random.Generator(that) is a part like any other.
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch left it untyped
        state["cuda"] = [
            _to_bytes(torch.cuda.get_rng_state(index)) for index in range(torch.cuda.device_count())
        ]
    return state


def apply(state: dict[str, Any]) -> None:
    """Put every generator that is named there back to a captured state.

    CUDA devices this machine lacks are passed over; the resume audit says so.
    """
    if "python" in state:
        put_python_state(None, state["python"])
    if "torch" in state:
        torch.set_rng_state(_to_tensor(state["torch"]))
    if "numpy" in state:
        import numpy as np

        saved = state["numpy"]
        keys = np.frombuffer(saved["keys"], "<u4").astype(np.uint32)
        np.random.set_state(  # noqa: NPY002 - the global generator is what was captured
            (saved["name"], keys, saved["position"], saved["has_gauss"], saved["cached_gaussian"])
        )
    for index, saved in enumerate(state.get("cuda", [])):
        if saved is not None and index < torch.cuda.device_count():
            torch.cuda.set_rng_state(_to_tensor(saved), index)


def python_state(generator: random.Random | None = None) -> dict[str, Any]:
    """Return the state of one of Python's generators as plain values, by default the process's."""
    version, words, gauss = random.getstate() if generator is None else generator.getstate()
    return {
        "version": version,
        "words": struct.pack(f"<{len(words)}I", *words),
        "gauss_next": gauss,
    }


def put_python_state(generator: random.Random | None, state: Mapping[str, Any]) -> None:
    """Put one of Python's generators, by default the process's, back to a state of that form."""
    words = struct.unpack(f"<{len(state['words']) // 4}I", state["words"])
    taken = (state["version"], words, state["gauss_next"])
    if generator is None:
        random.setstate(taken)
    else:
        generator.setstate(taken)


@contextmanager
def forked() -> Iterator[None]:
    """Leave every generator as it was, whatever is drawn inside.

    A generator that stands where it stood is not written to, so that a thread that draws from it at
    the end gets no number twice. But they belong to all threads, and nobody can tell who drew: what
    another thread draws while this is entered is taken back too, and is drawn again.
    """
    before = capture()
    try:
        yield
    finally:
        apply(_moved(before, capture()))


def _moved(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the states in *before* of those generators that stand elsewhere in *after*."""
    moved = {
        name: state for name, state in before.items() if name != "cuda" and state != after.get(name)
    }
    states, now = before.get("cuda", []), after.get("cuda", [])
    if states != now:
        moved["cuda"] = [
            None if now[index : index + 1] == [state] else state
            for index, state in enumerate(states)
        ]
    return moved


def _to_bytes(state: torch.Tensor) -> bytes:
    return bytes(state.cpu().numpy().tobytes())


def _to_tensor(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
