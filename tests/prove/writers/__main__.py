"""``python -m tests.prove.writers``: several processes on one store, in a folder and on S3."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.prove.kill.places import s3_server
from tests.prove.writers.processes import Site
from tests.prove.writers.scenarios import Figures, one_run, tags, training

Scenario = Callable[[Site, int], Figures]
SCENARIOS: dict[str, Scenario] = {
    "eight processes fill one run": lambda site, rounds: one_run(site, 8, rounds),
    "a training, an evaluator, a janitor": lambda site, rounds: training(site, 10 * rounds),
    "two processes move one tag": lambda site, rounds: tags(site, 5 * rounds, copy_of(site)),
}
COLUMNS = ("processes", "versions", "entries", "late", "deleted", "seconds")


def main() -> int:
    """Print a table; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.writers")
    parser.add_argument("--rounds", type=int, default=8, help="versions a process saves")
    options = parser.parse_args()
    began, violations = time.monotonic(), []
    line = f"{'on one store':40}{'storage':>9}" + "".join(f"{name:>11}" for name in COLUMNS)
    sys.stdout.write(f"{line}\n")
    with ExitStack() as stack:
        for storage, place in (("folder", folder), ("s3", stack.enter_context(buckets()))):
            for name, scenario in SCENARIOS.items():
                with tempfile.TemporaryDirectory(prefix="writers-") as made:
                    started = time.monotonic()
                    try:
                        figures = scenario(place(Path(made)), options.rounds)
                    except Exception:  # noqa: BLE001 - whatever it is, it is shown, and no proof
                        violations.append(f"{name} on {storage}:\n{traceback.format_exc()}")
                        continue
                counts = [figures.processes, figures.versions, figures.entries, figures.late]
                counts += [figures.deleted, round(time.monotonic() - started)]
                row = "".join(f"{count:>11,}" for count in counts)
                sys.stdout.write(f"{name:40}{storage:>9}{row}\n")
                sys.stdout.flush()
    for violation in violations:
        sys.stdout.write(f"\nVIOLATION {violation}\n")
    sys.stdout.write(f"\n{len(violations)} violations in {time.monotonic() - began:.0f} s\n")
    return 1 if violations else 0


def folder(made: Path) -> Site:
    """Return a store in a folder."""
    return Site(str(made / "store"), made)


def copy_of(site: Site) -> Path | None:
    """Return where a plain copy of a store goes, None where it is no folder."""
    return None if "://" in site.url else site.folder / "copy"


@contextmanager
def buckets() -> Iterator[Callable[[Path], Site]]:
    """Run an S3 server in this process, and yield what makes a bucket for a store."""
    with s3_server() as (endpoint, backend):
        options = {
            "key": "moto-takes-any-access-key",
            "secret": "moto-takes-any-secret-key",
            "endpoint_url": endpoint,
            "client_kwargs": {"region_name": "us-east-1"},
        }

        def bucket(made: Path) -> Site:
            name = f"writers-{uuid.uuid4().hex}"
            backend.create_bucket(name, "us-east-1")
            return Site(f"s3://{name}/some/prefix", made, options)

        yield bucket


if __name__ == "__main__":
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    raise SystemExit(main())
