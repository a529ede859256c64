"""A state as of now: its tensors are copied, or will be before anything writes to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Sequence

import torch

from ckptstore.errors import TornSnapshotError
from ckptstore.format.paths import tensors_by_path
from ckptstore.format.untree import tensor_places
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.device_copies import DeviceCopies
from ckptstore.saving.laying_out import Layout, Slot
from ckptstore.saving.overlap import Overlap, storage_of
from ckptstore.saving.rest import Pair, Rest
from ckptstore.saving.staging import Staging
from ckptstore.state.tensors import as_integers

# What torch copies as it is; of other dtypes it may have no kernel, or warn.
_COPIED = frozenset(
    {
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
        *(torch.complex64, torch.complex128, torch.bool),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    }
)


class Snapshot:
    """Parts whose tensors are copies.

    Attributes:
        parts: As captured, but for their tensors. Those have the same dtypes, shapes, stride orders
            and need of gradients, and give the same bytes; they lie on the CPU, at 64-byte
            addresses. To be read from when :meth:`copy_rest` or :meth:`wait_copied` has returned
            until :meth:`release` is called.
        size_bytes: How much memory the copies take.
        waited_s: For how long steps and :meth:`wait_copied` held their callers up, in seconds.
    """

    def __init__(
        self, parts: Sequence[CapturedPart], staging: Staging, overlap: Overlap | None
    ) -> None:
        begun = time.perf_counter()
        layout = Layout(parts)
        self.size_bytes = layout.total_bytes
        self.waited_s = 0.0
        self._lock = threading.Lock()
        self._devices = DeviceCopies()
        on_cuda = any(slot.source.device.type == "cuda" for slot in layout.slots)
        self._buffer = staging.take(layout.size_bytes, pinned=on_cuda)
        try:
            with torch.no_grad():
                self.parts = layout.lay_out(self._buffer.memory)
                late = [] if overlap is None else _late(layout.slots, overlap)
                self._start(layout.slots, {id(slot) for slot, _ in late}, _Alarm(late, parts))
        except BaseException:
            self._buffer.give_back()
            raise
        self._copied_s = time.perf_counter() - begun
        if late and overlap is not None:
            overlap.before_steps(self._before_step)

    def _start(self, slots: Sequence[Slot], late: Container[int], alarm: _Alarm) -> None:
        now = [slot for slot in slots if id(slot) not in late]
        _copy(now, self._devices)
        later = [slot for slot in slots if id(slot) in late]
        if later:
            # What is not copied later is written to by whatever comes next on the device.
            self._devices.hold_back()
            _copy([slot for slot in later if slot.source.device.type != "cpu"], self._devices)
        else:
            self._devices.wait()
        for slot in later:
            # A name of our own: torch can swap two tensors in all names that others have for them.
            slot.source = slot.source.detach()
        pairs = [_pair(slot) for slot in later if slot.source.device.type == "cpu"]
        self._rest = Rest(pairs, alarm.sound)
        if not later:
            self._rest.finish(hurried=True)

    @property
    def copied_s(self) -> float:
        """How long copying took so far, in whatever threads, in seconds."""
        return self._copied_s + self._rest.copied_s

    @property
    def is_copied(self) -> bool:
        """Whether nothing is left to be copied."""
        return self._rest.is_done

    def copy_rest(self) -> None:
        """Copy what is left, in this thread alone; return when all is copied.

        Raises:
            TornSnapshotError: A tensor was written to before it was copied.
            Exception: What copying raised.
        """
        self._finish(hurried=False)

    def wait_copied(self) -> None:
        """Copy what is left, with all cores; return when all is copied.

        Raises:
            TornSnapshotError: A tensor was written to before it was copied.
            Exception: What copying raised.
        """
        begun = time.perf_counter()
        try:
            self._finish(hurried=True)
        finally:
            self.waited_s += time.perf_counter() - begun

    def release(self) -> None:
        """Give the memory back, whether all is copied or not; nobody may read it after that."""
        self._rest.give_up()
        with self._lock:
            for part in self.parts:  # which an error may keep, by the lines that it went through
                part.tensors.clear()
            self.parts = []
            self._devices.wait()  # else a GPU might write into what is another save's by then
            self._buffer.give_back()

    def _finish(self, *, hurried: bool) -> None:
        self._devices.wait()
        self._rest.finish(hurried=hurried)
        if self._rest.failure is not None:
            raise self._rest.failure

    def _before_step(self) -> bool:
        """Have all copied before a step writes. What fails is not the step's: the save tells it."""
        if self._rest.is_elsewhere:
            return True
        # Each optimizer may step on a stream of its own, also once a first one has waited.
        self._devices.hold_back()
        if not self._rest.is_done:
            begun = time.perf_counter()
            self._rest.finish(hurried=True)
            self.waited_s += time.perf_counter() - begun
        return True


def snapshot(
    parts: Sequence[CapturedPart], staging: Staging, *, overlap: Overlap | None = None
) -> Snapshot:
    """Take a snapshot of captured parts, which are left as they are.

    Args:
        parts: As captured. Their tensors are held until they are copied.
        staging: Where the copies go.
        overlap: What may be copied later; by default nothing, and all is copied when it returns.

    Raises:
        StorageError: There is no memory for the copies.
    """
    return Snapshot(parts, staging, overlap)


class _Alarm:
    """Tells of tensors that were written to too early, by their version counters."""

    def __init__(
        self, late: Sequence[tuple[Slot, torch.Tensor]], parts: Sequence[CapturedPart]
    ) -> None:
        # Names of our own share the counters, and stay with their memory if tensors are swapped.
        names = [(slot, live.detach()) for slot, live in late]
        self._watched = [(slot.part, slot.place, name, name._version) for slot, name in names]  # noqa: SLF001 - torch's own name for it
        self._trees = {part.name: part.tree for part in parts}

    def sound(self) -> TornSnapshotError | None:
        """Return what is to be raised, if anything was written to. Asked once."""
        torn = [
            _path(self._trees[part], part, place)
            for part, place, live, version in self._watched
            if live._version != version  # noqa: SLF001 - as above
        ]
        self._watched, self._trees = [], {}  # which hold the live tensors
        if not torn:
            return None
        others = len(torn) - 1
        return TornSnapshotError(
            f"{torn[0]!r}{f' and {others} more tensors' if others else ''} changed before "
            "the overlapped save had copied it, so that what was copied is of no one moment, and "
            "nothing was saved: call wait_copied() of what save_async() returns before anything "
            "but an optimizer's step writes to the weights or to an optimizer's state, or leave "
            "overlap=True out"
        )


def _path(tree: object, part: str, place: int) -> str:
    """Return the path of a part's tensor by its place."""
    for path, node in tensors_by_path(tree).items():
        if place in tensor_places(node):
            return f"{part}/{path}"
    return f"{part}/{place}"


def _late(slots: Sequence[Slot], overlap: Overlap) -> list[tuple[Slot, torch.Tensor]]:
    """Return what may be copied later, each with the tensor of the optimizer that it is."""
    found = []
    written = set()
    for slot in slots:
        live = overlap.find(slot.source) if slot.is_dense else None
        if live is None or slot.source.device.type not in ("cpu", "cuda"):
            written.add(storage_of(slot.source))
        else:
            found.append((slot, live))
    # Memory that anything else looks into may be written to through that.
    return [(slot, live) for slot, live in found if storage_of(slot.source) not in written]


def _copy(slots: Sequence[Slot], devices: DeviceCopies) -> None:
    """Copy with all cores, or start to, where that is a GPU's work."""
    on_device: dict[torch.device, list[Pair]] = {}
    for slot in slots:
        pair = _pair(slot)
        if pair.source.is_cuda:
            on_device.setdefault(pair.source.device, []).append(pair)
        else:
            pair.copy.copy_(pair.source)
    for device, pairs in on_device.items():
        devices.start(device, pairs)


def _pair(slot: Slot) -> Pair:
    """Return a tensor and its copy, as integers where torch may not copy the dtype."""
    if slot.copy is None:
        raise AssertionError("a slot is laid out before it is copied")
    if slot.source.dtype in _COPIED:
        return Pair(slot.source, slot.copy)
    source = slot.source.resolve_conj().resolve_neg()
    return Pair(as_integers(source), as_integers(slot.copy))
