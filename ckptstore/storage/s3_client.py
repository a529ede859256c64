"""Requests to S3: s3fs's client, fsspec's loop, our own attempts.

How often a request was tried decides what a 412 means, so neither library may repeat it unseen.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from ckptstore.storage import s3_errors
from ckptstore.storage.instances import Instances

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

RETRY_DELAYS_S = (0.2, 0.6, 1.8, 5.4)
"""How long to wait before each further attempt, give or take half of it."""

CONFIG: dict[str, Any] = {
    # Many S3 services refuse, or forget, the checksums that botocore has added since 1.36.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
    "retries": {"total_max_attempts": 1},
    "max_pool_connections": 32,
    # s3fs's 15 s is over before a slow uplink has sent six parts of 16 MiB.
    "read_timeout": 60,
}
"""Defaults of botocore's configuration."""


class S3Client:
    """Makes requests, each until it succeeds, fails for good, or was tried often enough.

    Args:
        instances: Give this process's ``S3FileSystem``.
        retry_delays_s: How long to wait before each further attempt, give or take half of it.
    """

    def __init__(self, instances: Instances, retry_delays_s: Sequence[float]) -> None:
        self._instances = instances
        self.retry_delays_s = tuple(retry_delays_s)
        self._slots: dict[tuple[int, str], asyncio.Semaphore] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the slots here: they belong to this process's loop."""
        return {**self.__dict__, "_slots": {}}

    def slots(self, kind: str, limit: int) -> asyncio.Semaphore:
        """Return what bounds how many of a kind this process has under way, all threads together.

        Args:
            kind: What is counted.
            limit: How many at once.
        """
        return self._slots.setdefault((os.getpid(), kind), asyncio.Semaphore(limit))

    def run(
        self,
        work: Callable[Arguments, Awaitable[Result]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run *work* on fsspec's loop and wait for it, also if waiting is interrupted.

        fsspec's own ``sync`` leaves the work running then, and it would go on writing into memory
        that the caller has back.
        """
        ended, given_up = threading.Event(), threading.Event()
        running: list[asyncio.Task[Any]] = []
        loop = self._instances.get().loop

        async def until_ended() -> Result:
            try:
                running.extend(task for task in [asyncio.current_task()] if task is not None)
                if given_up.is_set():
                    raise asyncio.CancelledError
                return await work(*args, **kwargs)
            finally:
                ended.set()

        def stop() -> None:
            for task in running:
                task.cancel()

        try:
            # All in the block: a signal may come as soon as the loop has the work.
            return asyncio.run_coroutine_threadsafe(until_ended(), loop).result()
        except BaseException:
            if not ended.is_set():
                given_up.set()
                loop.call_soon_threadsafe(stop)
                ended.wait(timeout=5)
            raise

    async def request(self, method: str, **arguments: Any) -> Any:
        """Make one attempt at one request of the S3 API. The place where tests put faults."""
        filesystem = self._instances.get()
        try:
            await filesystem.set_session()
            client = await filesystem.get_s3(arguments["Bucket"])
        except TypeError as error:  # s3fs passes options on that it does not know
            raise self._instances.explain(error) from None
        call = getattr(client, method)
        # Adds the user's s3_additional_kwargs (encryption, say) where a method takes them.
        return await call(**filesystem._get_s3_method_kwargs(call, **arguments))  # noqa: SLF001 - s3fs's own use

    async def repeat(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Make attempts until one succeeds, fails for good, or there were enough."""
        for delay_s in self.retry_delays_s:
            try:
                return await attempt()
            except s3_errors.FAILURES as error:
                if not s3_errors.is_transient(error):
                    raise
            await self.pause(delay_s)
        return await attempt()

    async def repeat_request(self, method: str, **arguments: Any) -> Any:
        """Make a request of the S3 API that may be made twice."""

        async def attempt() -> Any:
            if isinstance(body := arguments.get("Body"), io.BytesIO):
                body.seek(0)
            return await self.request(method, **arguments)

        return await self.repeat(attempt)

    async def pause(self, delay_s: float) -> None:
        """Wait about that long: processes that failed together must not come back together."""
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
