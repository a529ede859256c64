"""Which service an address is on: the same bucket's name may be another's on another endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_SAY_WHERE = frozenset(
    {
        "account_host",
        "account_name",
        "api_endpoint",
        "base_url",
        "endpoint",
        "endpoint_override",
        "endpoint_url",
        "host",
        "port",
        "profile",
    }
)
_ENVIRONMENT = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CONFIG_FILE"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "abfs": ("AZURE_STORAGE_ACCOUNT_NAME",),
}
_SAME = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs"}
# Of a connection string, which has the key too.
_CONNECTED = re.compile(r"(?i)\b(?:AccountName|BlobEndpoint|EndpointSuffix)=[^;?]*")
_USER = re.compile(r"(?<=//)[^/]*@")


def service_of(url: str, options: Mapping[str, Any]) -> str:
    """Return what tells the service of an address from others of its kind; no credentials.

    A profile counts, as its file may name an endpoint: that two names of one service are taken for
    two costs a second copy, while two services taken for one would give the weights of another.

    Args:
        url: The address.
        options: The arguments of the filesystem's class.
    """
    protocol = url.partition("://")[0]
    found = {
        name: value
        for some in (options.get("client_kwargs"), options)
        if isinstance(some, Mapping)
        for name, value in some.items()
        if name in _SAY_WHERE and value is not None
    }
    said = [f"{name}={found[name]}" for name in sorted(found)]
    if not found.keys() & {"endpoint_url", "endpoint"}:
        names = _ENVIRONMENT.get(_SAME.get(protocol, protocol), ())
        said += [f"{name}={value}" for name in names if (value := os.environ.get(name))]
    said += _CONNECTED.findall(str(options.get("connection_string") or ""))
    return _USER.sub("", ";".join(said))
