"""Every Python block in the documentation runs, page by page, as a reader would type it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.docs.pages import PAGES, ROOT, named, snippets

BUCKET = "bucket"  # the one that pages write to, as s3://bucket/...


def program(page: Path) -> str:
    """The Python blocks of *page*, each on its own lines, so that a traceback points there."""
    lines: list[str] = []
    for snippet in snippets(page):
        if snippet.language == "python":
            lines += [""] * (snippet.line - 1 - len(lines))
            lines += snippet.code.splitlines()
    return "\n".join(lines) + "\n"


WITH_PYTHON = [page for page in PAGES if program(page).strip()]


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """A server that speaks S3, with an empty bucket; yields the environment that leads to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield environment
    server.stop()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_snippets_run(page, tmp_path, request):
    code = program(page)
    script = tmp_path / page.with_suffix(".py").name
    script.write_text(code)
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "PYTHONPATH": str(ROOT),
    }
    if "s3://" in code:
        environment |= request.getfixturevalue("s3")

    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    where = f"{named(page)}, by line:\n"
    assert done.returncode == 0, where + done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_blocks_say_their_language(page):
    unnamed = [snippet.line for snippet in snippets(page) if not snippet.language]
    assert unnamed == [], f"{named(page)}: name the language, or 'text', at these lines"
