"""A process that has everything imported and forks a child for each piece of work.

Importing torch takes over a second, a fork a few milliseconds. Requests and answers are lines of
JSON. The process has one thread and no connection when it forks; what needs either is made in the
child, as after any fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

Tell = Callable[[dict[str, Any]], None]
ROOT = Path(__file__).parents[3]
PART_BYTES = 2048
"""How large the parts of a multipart upload are here: a pack has two or three."""
LIMIT_S = 60.0
"""How long a child may take before it counts as hung."""


@dataclass
class Answer:
    """What became of a child."""

    status: int
    """As ``os.waitpid`` gives it, in ``subprocess``'s terms: negative is a signal's number."""
    facts: list[tuple[Any, ...]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def was_killed(self) -> bool:
        """Whether it died at its point."""
        return self.status == -signal.SIGKILL and self.error is None


class Forks:
    """The other end: starts that process and asks it for children.

    Args:
        folder: Where it works; nothing of a checkout is looked for there.
        environment: More variables, e.g. where S3 is.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.prove.kill.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "TMPDIR": str(folder),
                "XDG_DATA_HOME": str(folder),
                **(environment or {}),
            },
        )

    def ask(self, **request: Any) -> Answer:
        """Have a child do *request*: see :func:`work`.

        Raises:
            RuntimeError: The process is gone.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the process has no pipes")
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the forking process ended with {self._process.wait()}")
        answer = Answer(**json.loads(line))
        answer.facts = [tuple(fact) for fact in answer.facts]
        return answer

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ------------------------------------------------------------------------------- in the children


def work(request: Mapping[str, Any], tell: Tell) -> None:
    """Do one piece of work.

    Args:
        request: ``operation``: its name. ``world``: the addresses. ``do``: ``prepare``; ``run``,
            counting points where ``count``, dying where ``kill`` says; or ``recover``: run it again
            and clean up. ``fault``: the name of a fault of :mod:`tests.prove.kill.faults` to put
            into ckptstore first.
        tell: Sends a line to whoever asked.
    """
    from tests.prove import save_ids
    from tests.prove.kill import faults, operations, recovery
    from tests.prove.kill.points import Points

    phases = {"prepare": save_ids.PREPARING, "recover": save_ids.RECOVERING}
    ids = save_ids.in_folders_from(phases.get(request["do"], save_ids.ACTING))
    world = operations.World(
        **request["world"], acknowledge=lambda fact: tell({"facts": [list(fact)]})
    )
    operation = operations.OPERATIONS[request["operation"]]
    if request.get("fault") and request["do"] != "recover":
        faults.FAULTS[request["fault"]]()
    if request["do"] == "prepare":
        with ids:
            operation.prepare(world)
    elif request["do"] == "recover":
        with ids:
            recovery.recover(operation, world)
    else:
        ids.__enter__()  # for as long as this process lives
        at, when = request.get("kill") or (None, "")
        points = Points(at, when)
        if operation.in_months:
            operations.months_later().__enter__()  # for as long as this process lives
        points.install(request["folder"])
        operation.run(world)
        if request.get("count"):
            tell({"points": [asdict(each) for each in list(points.seen)], "unseen": points.unseen})


def be_a_child(do: Callable[[Tell], None], pipe: int) -> NoReturn:
    """Be a child: never return."""
    write = os.write  # counted and killed at, later on
    status = 1

    def tell(line: dict[str, Any]) -> None:
        data = memoryview(json.dumps(line).encode() + b"\n")
        while data:
            data = data[write(pipe, data) :]

    try:
        do(tell)
        status = 0
    except BaseException:  # noqa: BLE001 - whoever asked raises it
        tell({"error": traceback.format_exc()})
    finally:
        os._exit(status)


# ---------------------------------------------------------------------------- the forking process


class Child:
    """A forked process.

    Args:
        do: What it does, given a function that sends a line to whoever asked. It may end there.
    """

    def __init__(self, do: Callable[[Tell], None]) -> None:
        self._reading, writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self._reading)
            be_a_child(do, writing)
        os.close(writing)
        self._data = bytearray()

    def hear(self) -> Answer:
        """Return what it says until it has done its piece of work, or is dead."""
        answer, ends = Answer(0), time.monotonic() + LIMIT_S
        while True:
            line, found, rest = self._data.partition(b"\n")
            if found:
                self._data = rest
                said = json.loads(line)
                if said.get("done"):
                    return answer
                answer.facts += said.get("facts", [])
                answer.points += said.get("points", [])
                answer.unseen += said.get("unseen", [])
                answer.error = said.get("error", answer.error)
                continue
            ready, _, _ = select.select([self._reading], [], [], max(ends - time.monotonic(), 0))
            if not ready:
                os.kill(self.process, signal.SIGKILL)
                answer.error = f"it hung for {LIMIT_S:g} s"
            if not ready or not (got := os.read(self._reading, 65536)):
                answer.status = self.end()
                return answer
            self._data += got

    def end(self) -> int:
        """Wait until it is dead, and return how it ended."""
        os.close(self._reading)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


class Keeper:
    """A child that lives on: for what is not to be killed, as a fork costs more than most of it."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._requests = -1

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """Have it done."""
        if self._child is None:
            reading, self._requests = os.pipe()
            writing = self._requests
            self._child = Child(lambda tell: keep(reading, writing, tell))
            os.close(reading)
        os.write(self._requests, json.dumps(request).encode() + b"\n")
        answer = self._child.hear()
        if answer.status:
            os.close(self._requests)
            self._child = None
        return answer


def keep(reading: int, writing: int, tell: Tell) -> None:
    """Be the keeper, until who asks is gone."""
    os.close(writing)  # or there would always be somebody who might ask
    with os.fdopen(reading, "rb") as requests:
        for request in requests:
            try:
                work(json.loads(request), tell)
            except BaseException:  # noqa: BLE001 - whoever asked raises it
                tell({"error": traceback.format_exc()})
            tell({"done": True})


def answer_to(request: Mapping[str, Any], keeper: Keeper) -> Answer:
    """Have a request done by the process it is for."""
    if request["do"] == "recover":
        return keeper.ask(request)
    child = Child(lambda tell: work(request, tell))
    return child.hear()


async def warm_up_s3() -> None:
    """Make a client and one request, on a loop that is gone afterwards."""
    import aiobotocore.session
    import botocore.exceptions
    import botocore.loaders
    import botocore.session

    # The descriptions of S3's requests are 1 MB of JSON, which every client else reads anew.
    loader = botocore.loaders.create_loader()
    botocore.session.create_loader = lambda _=None: loader
    async with aiobotocore.session.get_session().create_client("s3") as client:
        with contextlib.suppress(botocore.exceptions.ClientError):  # there is no such bucket
            await client.get_object(Bucket="warm-up", Key="nothing")


def warm_up() -> None:
    """Import all that a child will want, and do once what is slow the first time."""
    warnings.simplefilter("ignore")
    import s3fs  # noqa: F401 - imported for the children
    import torch

    from ckptstore.storage import s3
    from tests.prove.kill import faults, operations, recovery  # noqa: F401 - the same

    torch.set_num_threads(1)
    if "AWS_ENDPOINT_URL" in os.environ:
        asyncio.run(warm_up_s3())
        # So that the small packs of the operations go up as those of large models do.
        s3.S3Storage.__init__.__kwdefaults__["part_bytes"] = PART_BYTES
    for operation in operations.OPERATIONS.values():
        with tempfile.TemporaryDirectory() as folder:
            world = operations.World(
                url=f"{folder}/store",
                catalog=f"sqlite:///{folder}/catalog.sqlite3",
                other_url=f"{folder}/other",
                other_catalog=f"sqlite:///{folder}/other.sqlite3",
                acknowledge=lambda _: None,
            )
            # What fails here is only slow later, and says why where it is asked for.
            with contextlib.suppress(Exception):
                operation.prepare(world)
                operation.run(world)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a child prints is no answer
    warm_up()
    keeper = Keeper()
    for line in sys.stdin.buffer:
        answer = answer_to(json.loads(line), keeper)
        answers.write(json.dumps(asdict(answer)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
