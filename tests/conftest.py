"""Places to put a store: a folder, memory, and S3 on a server of this machine."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

SECRET = "moto-takes-any-secret-key"
REGION = "us-east-1"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server of this process's own (with xdist: one a worker)."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> None:
    """Credentials and the endpoint where users have them, and nothing of this machine's own."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moto-takes-any-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_client(s3_environment: None) -> Any:  # noqa: ARG001 - marks on fixtures have no effect
    """A client of boto3's, to look at a bucket past our own code."""
    return boto3.client("s3")


@pytest.fixture
def s3_url(s3_client: Any) -> Iterator[str]:
    """A prefix in a fresh bucket, which is gone after the test."""
    bucket = f"test-{uuid.uuid4().hex}"
    s3_client.create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/some/prefix"
    for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page.get("Contents", []):
            s3_client.delete_object(Bucket=bucket, Key=each["Key"])
    for upload in s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3_client.abort_multipart_upload(
            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
    s3_client.delete_bucket(Bucket=bucket)


@pytest.fixture
def memory_url() -> Iterator[str]:
    """A prefix in this process's memory, which is gone after the test."""
    root = f"test-{uuid.uuid4().hex}"
    yield f"memory://{root}/store"
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def storage_options(s3_endpoint: str) -> dict[str, Any]:
    """Options that lead to the S3 server without anything in the environment."""
    return {
        "key": "moto-takes-any-access-key",
        "secret": SECRET,
        "endpoint_url": s3_endpoint,
        "client_kwargs": {"region_name": REGION},
    }


@pytest.fixture(params=["local", "memory", "s3"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of a place where nothing is yet, on each kind of storage."""
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path") / "store")
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def root(store_url: str) -> str:
    """Another name of ``store_url``."""
    return store_url


@pytest.fixture(autouse=True)
def _interrupts_arrive():
    """Let an interrupt reach Python: whatever a shell starts in its background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
