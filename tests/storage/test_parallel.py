"""Several things at once on one loop."""

from __future__ import annotations

import asyncio

import pytest

from ckptstore.storage.parallel import end, in_parallel


def test_results_come_in_the_order_of_the_items():
    async def late(number: int) -> int:
        await asyncio.sleep(0.001 * (5 - number))
        return number * 10

    assert asyncio.run(in_parallel(late, range(5), limit=5)) == [0, 10, 20, 30, 40]


def test_no_more_run_at_once_than_allowed():
    running, most = 0, 0

    async def one(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    asyncio.run(in_parallel(one, range(20), limit=3))

    assert most == 3


def test_after_a_failure_nothing_is_running():
    ended = []

    async def one(number: int) -> None:
        if number == 1:
            raise OSError
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    async def all_of_them() -> None:
        with pytest.raises(OSError):  # noqa: PT011 - any will do
            await in_parallel(one, range(3), limit=3)
        assert sorted(ended) == [0, 2]

    asyncio.run(all_of_them())


def test_ending_waits_for_what_was_cancelled():
    async def check() -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        await end([task])
        assert task.cancelled()

    asyncio.run(check())
