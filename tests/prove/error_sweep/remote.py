"""One request to S3 fails, or all from there on: what must hold afterwards."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import IncompleteReadError

from ckptstore import Store
from ckptstore.storage.s3 import S3Storage
from tests.faults import store_on
from tests.prove.error_sweep.bucket import Bucket, storage_in
from tests.prove.error_sweep.local import (
    Known,
    Outcome,
    Without,
    check_error,
    check_goes_on,
    check_versions,
)
from tests.prove.error_sweep.verbs import Verb, do, fill
from tests.prove.states import entries, is_right, quietly, tags_of, threads
from tests.storage.s3_faults import answer, taken, timeout

Send = Callable[..., Awaitable[Any]]
PUTS = frozenset({"put_object", "complete_multipart_upload"})


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

    def hits(self, method: str, arguments: Iterable[str]) -> bool:
        """Say whether it can happen to a request."""
        return (not self.only or method in self.only) and (
            not self.conditional or "IfNoneMatch" in arguments
        )


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
        at: Which, counted from 1.
        always: Whether all later ones fail too.
    """

    def __init__(self, send: Send, fault: RemoteFault, at: int, *, always: bool) -> None:
        self._send = send
        self._fault = fault
        self._at: int | None = at
        self._always = always
        self._late: list[tuple[str, dict[str, Any]]] = []
        self.count = 0
        self.hit: list[str] = []

    async def __call__(self, method: str, **arguments: Any) -> Any:
        fault = self._fault
        can = fault.hits(method, arguments)
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
        self._without: dict[str, tuple[list[tuple[str, list[str]]], Without]] = {}
        with quietly(), store_on(storage_in(self.template)) as store:
            fill(store)

    def fresh(self, verb: Verb) -> Bucket:
        """Return the bucket of one case."""
        return Bucket() if verb.in_nothing else self.template.copy()

    def calls(self, verb: Verb, fault: RemoteFault) -> Without:
        """Do a verb once, and count the requests that the fault can happen to."""
        if verb.name not in self._without:
            storage, seen = storage_in(bucket := self.fresh(verb)), []

            async def send(method: str, **arguments: Any) -> Any:
                seen.append((method, list(arguments)))
                return await bucket(method, **arguments)

            with quietly(), store_on(storage) as store:
                verb.before(store)
                storage.client.request = send  # type: ignore[method-assign] # to be counted
                answer = do(verb, store)
            self._without[verb.name] = seen, Without(0, answer, _known(bucket))
        seen, without = self._without[verb.name]
        return replace(without, count=sum(fault.hits(*each) for each in seen))


def sweep(
    place: RemotePlace, verb: Verb, fault: RemoteFault, *, always: bool, every: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Fail each request in turn (or every n-th), and yield how it ended."""
    without = place.calls(verb, fault)
    for at in range(1, without.count + 1, every):
        yield at, case(place, verb, fault, at, always=always, without=without)


def case(
    place: RemotePlace, verb: Verb, fault: RemoteFault, at: int, *, always: bool, without: Without
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
            got = do(verb, store)
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it is judged below
            error = caught
        requests.stop()
        check_error(error, fault)
        if error is not None:  # its frames hold what was being loaded
            traceback.clear_frames(error.__traceback__)
        assert not threads(), f"threads go on: {threads()}"
        _check_uploads(bucket, requests, error)
        found = _known(bucket)
        check_versions(known, found, verb, error)
        if error is None:
            without.check(verb, got, found)
        verb.after(store)
        requests.land(bucket)
        landed = _known(bucket)
        gone = {each[0] for each in found[0].items() - landed[0].items()} - verb.retires
        assert not gone, "what landed late took something's place"
        check_goes_on(store, landed)
    return Outcome(
        "success" if error is None else type(error).__name__,
        error is not None and len(landed[0]) > len(known[0]),
    )


def _stand_before(
    storage: S3Storage, fault: RemoteFault, at: int, *, always: bool
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


def _known(bucket: Bucket) -> Known:
    """Return the versions with their epochs, each loaded and compared, and the tags."""
    with store_on(storage_in(bucket)) as store:
        return look(store)


def look(store: Store) -> Known:
    """Return what a store holds; everything is loaded and compared."""
    found, damaged = entries(store)
    assert not damaged, f"visible and not whole: {damaged}"
    for each in found:
        assert is_right(each), f"{each.ref} is not what was saved as epoch {each.epoch}"
    return {each.version: each.epoch for each in found}, tags_of(found)
