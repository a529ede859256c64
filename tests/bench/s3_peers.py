"""Peers that put checkpoints into S3 and get them back, each at its best settings."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
import obstore
import s3fs
import torch
from obstore.store import S3Store
from s3torchconnector import S3Checkpoint, S3ClientConfig
from s3torchconnectorclient._mountpoint_s3_client import S3Exception

from .s3_servers import BUCKET, KEY, REGION, SECRET
from .state import Transformer

PART_BYTES = 16 * 2**20
RANGE_BYTES = 32 * 2**20
IN_FLIGHT = 12
S3FS = "torch.save through s3fs"
S3FS_LOAD = "torch.load of everything through s3fs"
CONNECTOR = "s3torchconnector"
OBSTORE = "obstore, bytes alone"
RANGES = "obstore, bytes alone, in ranges"

# The servers, and many an S3 service, lack the checksums that botocore adds by default.
WHEN_REQUIRED = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


@dataclass(frozen=True)
class Peers:
    """Clients of one server.

    Args:
        url: The server's.
    """

    url: str

    def s3fs(self) -> Any:
        """Return s3fs as it comes.

        Its file sends one part of 50 MiB at a time, whatever its ``max_concurrency``; it gets 10
        ranges of 50 MiB at once. Other sizes were not measured.
        """
        return s3fs.S3FileSystem(
            skip_instance_cache=True, use_listings_cache=False, config_kwargs=WHEN_REQUIRED
        )

    def connector(self) -> S3Checkpoint:
        """Return Amazon's connector, with parts as large as ours."""
        return S3Checkpoint(
            REGION,
            endpoint=self.url,
            s3client_config=S3ClientConfig(force_path_style=True, part_size=PART_BYTES),
        )

    def obstore(self) -> S3Store:
        """Return obstore's client."""
        return S3Store(
            BUCKET,
            endpoint=self.url,
            region=REGION,
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )

    def absent(self) -> dict[str, str]:
        """Return who cannot upload to this server, and why."""
        writer = self.connector().writer(f"s3://{BUCKET}/tried")
        try:
            writer.write(b"x")
            writer.close()
        except S3Exception as error:
            return {CONNECTOR: f"the server refuses its uploads ({error})"}
        return {}

    def without_ranges(self, name: str) -> dict[str, str]:
        """Return who cannot read ranges of an object of this server, and why."""
        try:
            obstore.get_range(self.obstore(), name, start=1, end=2)
        except obstore.exceptions.GenericError:
            return {RANGES: "it takes no range that is answered with status 200, as this server's"}
        return {}

    def savers(self, state: dict[str, Any], data: memoryview) -> dict[str, Callable[[str], None]]:
        """Return what uploads, by name; each takes the name of the object.

        Args:
            state: What ``torch.save`` is given.
            data: As many bytes, for those that know nothing of tensors.
        """
        filesystem, connector, store = self.s3fs(), self.connector(), self.obstore()

        def through_s3fs(name: str) -> None:
            with filesystem.open(f"{BUCKET}/{name}", "wb") as file:
                torch.save(state, file)

        def through_connector(name: str) -> None:
            with connector.writer(f"s3://{BUCKET}/{name}") as writer:
                torch.save(state, writer)

        def bytes_alone(name: str) -> None:
            obstore.put(store, name, data, chunk_size=PART_BYTES, max_concurrency=IN_FLIGHT)

        found = {S3FS: through_s3fs, CONNECTOR: through_connector, OBSTORE: bytes_alone}
        return {name: save for name, save in found.items() if name not in self.absent()}

    def loaders(self, whole: str, model: str, data: str) -> dict[str, Callable[[], object]]:
        """Return what gets a model back, by name.

        Args:
            whole: The object with model and optimizer.
            model: The object with the model alone, which only some know to look for.
            data: An object with as many bytes as the model has.
        """
        filesystem, connector, store = self.s3fs(), self.connector(), self.obstore()

        def loaded(file: Any, key: str | None) -> Transformer:
            found = torch.load(file, map_location="cpu", weights_only=True)
            built = Transformer()
            built.load_state_dict(found if key is None else found[key])
            return built.eval()

        def through_s3fs() -> object:
            # In one piece: torch.load of an open file asks for many small ranges.
            return loaded(io.BytesIO(filesystem.cat_file(f"{BUCKET}/{whole}")), "model")

        def through_connector() -> object:
            return loaded(connector.reader(f"s3://{BUCKET}/{model}"), None)

        def bytes_alone() -> object:
            return obstore.get(store, data).bytes()

        def ranges_alone() -> object:
            size = obstore.head(store, data)["size"]

            def one(start: int) -> object:
                return obstore.get_range(store, data, start=start, end=start + RANGE_BYTES)

            # Not get_ranges, which makes one request of neighbours.
            with ThreadPoolExecutor(IN_FLIGHT) as threads:
                return list(threads.map(one, range(0, size, RANGE_BYTES)))

        return {
            S3FS_LOAD: through_s3fs,
            f"{CONNECTOR}, the model saved alone": through_connector,
            OBSTORE: bytes_alone,
            RANGES: ranges_alone,
        }


def clear() -> None:
    """Remove every object and unfinished upload of the bucket."""
    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for each in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=each["Key"])
