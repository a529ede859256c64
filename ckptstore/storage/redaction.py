"""Take secrets out of text that other libraries wrote.

Messages of cloud libraries quote endpoints, signed URLs, account names and now and then keys. What
they say is worth passing on, and none of that is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

MASK = "***"

_SECRET_VARIABLE = re.compile(
    r"(?i)(AWS|AZURE|GOOGLE|GCS|S3|FSSPEC|CLOUDFLARE|R2|B2|OSS|HF|SWIFT|OS)_\w*"
    r"(KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION_STRING|ENDPOINT)\w*"
)
_SECRET_OPTION = re.compile(r"(?i)key|secret|token|pass|cred|sas|sign|auth|connection_string|user")

# (what to find, what to put there), in this order.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # The whole of a web address: the host is an endpoint, the query may be a signature.
    (re.compile(r"(?i)\b(?:https?|wss?)://[^\s\"'<>)\]]+"), "<endpoint>"),
    # scheme://user:password@ of any other address.
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@\"']+@"), rf"\1{MASK}@"),
    # "Cannot connect to host 10.0.0.1:9000 ssl:default", as aiohttp puts it.
    (re.compile(r"(?i)\bhost[ =:]+[\"']?[\w.\-\[\]]+(?::\d+)?"), "host <endpoint>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<endpoint>"),
    # Access key ids of AWS: AKIA… are a user's, ASIA… temporary.
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), MASK),
    (re.compile(r"(?i)\b(bearer|basic|sharedkey|aws4-hmac-sha256)\s+[^\s\"',;]+"), rf"\1 {MASK}"),
    (
        re.compile(
            r"(?i)\b([\w.-]*(?:secret|token|password|passwd|signature|credential|accountkey|"
            r"access_?key(?:_?id)?|api_?key|sig|sas)[\w.-]*[\"']?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
        ),
        rf"\1{MASK}",
    ),
)


class Options(dict[str, Any]):
    """Options of a filesystem, which show in no ``repr``: any of them may be a secret."""

    def __repr__(self) -> str:
        return f"<{len(self)} storage options>"

    __str__ = __repr__


def redact(text: str, options: Mapping[str, Any] | None = None) -> str:
    """Mask what may be a secret or an endpoint in *text*.

    Masked are the values of *options* and of environment variables that hold credentials, whoever
    wrote them, and what looks like a credential: the user part of an address, web addresses, access
    key ids, values called token, secret, signature and the like.

    Args:
        text: What another library said.
        options: The ``storage_options`` in use.
    """
    secrets = {*_secret_values(options or {}), *_secret_variables()}
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, MASK)
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text


def _secret_values(options: Mapping[str, Any], *, inherited: bool = False) -> Iterator[str]:
    """The strings among *options* that must not be shown, at any depth."""
    for name, value in options.items():
        secret = inherited or bool(_SECRET_OPTION.search(str(name)))
        if isinstance(value, Mapping):
            yield from _secret_values(value, inherited=secret)
        elif isinstance(value, (list, tuple)):
            numbered = {str(place): one for place, one in enumerate(value)}
            yield from _secret_values(numbered, inherited=secret)
        elif isinstance(value, (str, bytes, os.PathLike)):
            shown = os.fsdecode(value)
            # A value of one or two letters that nobody calls a secret is part of every text.
            if len(shown) >= (1 if secret else 4):
                yield shown


def _secret_variables() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.fullmatch(name) and len(value) >= 6:  # noqa: PLR2004 - a shorter one is no secret, and is in many a text
            yield value
