"""One request to S3 fails, or all from there on: what must hold afterwards."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import IncompleteReadError

from ckptstore import Store
from ckptstore.storage.s3 import S3Storage
from tests.faults import store_on
from tests.prove.error_sweep.bucket import Bucket
from tests.prove.error_sweep.local import Outcome, check_error, check_goes_on, check_versions
from tests.prove.error_sweep.verbs import Verb, fill
from tests.prove.states import entries, is_right, quietly, tags_of, threads
from tests.storage.s3_faults import answer, taken, timeout

Send = Callable[..., Awaitable[Any]]
PUTS = frozenset({"put_object", "complete_multipart_upload"})
PART_BYTES = 2048
"""Small, so that even a small state takes several parts."""


@dataclass(frozen=True)
class RemoteFault:
    """One way for a request to fail."""

    name: str
    make: Callable[[], BaseException]
    only: frozenset[str] = frozenset()
    """The requests it can happen to; none named: to any."""
    after: bool = False
    """The request has its effect, and the reply is lost."""
    late: bool = False
    """The request has its effect after everything was given up."""
    conditional: bool = False
    """It happens to conditional requests alone."""
    raises: type[BaseException] = Exception


def _short_read() -> BaseException:
    return IncompleteReadError(actual_bytes=1, expected_bytes=2)


REMOTE_FAULTS = [
    RemoteFault("timeout", timeout),
    RemoteFault("lost reply", timeout, after=True),
    RemoteFault("503", lambda: answer(503, "SlowDown")),
    RemoteFault("500 after the effect", lambda: answer(500, "InternalError"), after=True),
    RemoteFault("403", lambda: answer(403, "AccessDenied")),
    RemoteFault("409", lambda: answer(409, "ConditionalRequestConflict"), conditional=True),
    RemoteFault("412 that names it", taken, conditional=True),
    RemoteFault("412 that names nothing", lambda: taken(named=False), conditional=True),
    RemoteFault("lands late", timeout, only=PUTS, late=True),
    RemoteFault("body cut short", _short_read, only=frozenset({"get_object"})),
    RemoteFault("MemoryError", MemoryError, raises=MemoryError),
]


class FailingRequests:
    """Stands before a storage's requests, as `Failing` does before calls.

    Args:
        send: Sends a request on.
        fault: How.
        at: Which, counted from 1; None counts alone.
        always: Whether all later ones fail too.
    """

    def __init__(self, send: Send, fault: RemoteFault, at: int | None, *, always: bool) -> None:
        self._send = send
        self._fault = fault
        self._at = at
        self._always = always
        self._late: list[tuple[str, dict[str, Any]]] = []
        self.count = 0
        self.hit: list[str] = []

    async def __call__(self, method: str, **arguments: Any) -> Any:
        fault = self._fault
        can = (not fault.only or method in fault.only) and (
            not fault.conditional or "IfNoneMatch" in arguments
        )
        self.count += can
        fails = (
            can
            and self._at is not None
            and (self.count == self._at or (self._always and self.count > self._at))
        )
        if not fails:
            return await self._send(method, **arguments)
        self.hit.append(method)
        if fault.late:
            self._late.append((method, dict(arguments)))
        elif fault.after:
            await self._send(method, **arguments)
        raise fault.make()

    def stop(self) -> None:
        """Let nothing fail any more."""
        self._at = None

    def land(self, bucket: Bucket) -> None:
        """Let arrive what was given up, in its order; the condition holds then as ever."""
        for method, arguments in self._late:
            body = arguments.get("Body")
            if body is not None:
                body.seek(0)
            try:
                bucket.answer(method, **arguments)
            except Exception:  # noqa: BLE001, S112 - refused then: nobody waits for the answer
                continue
        self._late.clear()


class RemotePlace:
    """A bucket with a store that cases begin from, each in a copy of its own."""

    def __init__(self) -> None:
        self.template = Bucket()
        with quietly(), store_on(storage_in(self.template)) as store:
            fill(store)

    def fresh(self, verb: Verb) -> Bucket:
        """Return the bucket of one case."""
        return Bucket() if verb.in_nothing else self.template.copy()

    def calls(self, verb: Verb, fault: RemoteFault) -> tuple[int, Any]:
        """Return how many requests of a verb the fault can happen to, and what it answers."""
        storage = storage_in(self.fresh(verb))
        with quietly(), store_on(storage) as store:
            verb.before(store)
            counting = _stand_before(storage, fault, None, always=False)
            answered = verb.do(store)
        return counting.count, answered


def storage_in(bucket: Bucket) -> S3Storage:
    """Return a storage whose requests go to *bucket*; it waits between no attempts."""
    storage = S3Storage(
        "bucket/prefix",
        "s3://bucket/prefix",
        {"key": "x", "secret": "x"},
        part_bytes=PART_BYTES,
        retry_delays_s=(0, 0, 0, 0),
    )
    storage.client.request = bucket  # type: ignore[method-assign, assignment] # in S3's place
    return storage


def sweep(
    place: RemotePlace, verb: Verb, fault: RemoteFault, *, always: bool, every: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Fail each request in turn (or every n-th), and yield how it ended."""
    count, answered = place.calls(verb, fault)
    for at in range(1, count + 1, every):
        yield at, case(place, verb, fault, at, always=always, answered=answered)


def case(
    place: RemotePlace, verb: Verb, fault: RemoteFault, at: int, *, always: bool, answered: Any
) -> Outcome:
    """Do a verb while the request number *at* fails, and check what is left.

    Raises:
        AssertionError: It says what does not hold.
    """
    bucket = place.fresh(verb)
    storage = storage_in(bucket)
    with quietly(), store_on(storage) as store:
        verb.before(store)
        known = _known(bucket)
        requests = _stand_before(storage, fault, at, always=always)
        error, got = None, None
        try:
            got = verb.do(store)
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it is judged below
            error = caught
        requests.stop()
        check_error(error, fault)
        if error is not None:  # its frames hold what was being loaded
            traceback.clear_frames(error.__traceback__)
        assert not threads(), f"threads go on: {threads()}"
        _check_uploads(bucket, requests, error)
        if error is None and not verb.writes:
            assert got == answered, "it succeeded, and gave another answer than without the fault"
        found = _known(bucket)
        check_versions(known, found, verb, error)
        requests.land(bucket)
        landed = _known(bucket)
        assert found[0].items() <= landed[0].items(), "what landed late took something's place"
        check_goes_on(store, landed)
    return Outcome(
        "success" if error is None else type(error).__name__,
        error is not None and len(landed[0]) > len(known[0]),
    )


def _stand_before(
    storage: S3Storage, fault: RemoteFault, at: int | None, *, always: bool
) -> FailingRequests:
    requests = FailingRequests(storage.client.request, fault, at, always=always)
    storage.client.request = requests  # type: ignore[method-assign, assignment] # a fault is put here
    return requests


def _check_uploads(bucket: Bucket, requests: FailingRequests, error: BaseException | None) -> None:
    """No unfinished upload stays; where it could not be aborted, the error says so."""
    if not bucket.uploads:
        return
    stopped = {"abort_multipart_upload", "list_multipart_uploads"} & set(requests.hit)
    notes = " ".join(getattr(error, "__notes__", []))
    late = "complete_multipart_upload" in requests.hit
    assert late or (stopped and "could not be aborted" in notes), (
        f"uploads are left: {[key for key, _ in bucket.uploads.values()]}, and {error!r} says "
        f"nothing of it: {notes}"
    )


def _known(bucket: Bucket) -> tuple[dict[int, int], dict[str, int]]:
    """Return the versions with their epochs, each loaded and compared, and the tags."""
    with store_on(storage_in(bucket)) as store:
        return look(store)


def look(store: Store) -> tuple[dict[int, int], dict[str, int]]:
    """Return what a store holds; everything is loaded and compared."""
    found, damaged = entries(store)
    assert not damaged, f"visible and not whole: {damaged}"
    for each in found:
        assert is_right(each), f"{each.ref} is not what was saved as epoch {each.epoch}"
    return {each.version: each.epoch for each in found}, tags_of(found)
