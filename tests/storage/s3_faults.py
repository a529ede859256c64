"""Put faults where requests to S3 leave: refused, lost on the way back, or never answered."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from ckptstore.storage.s3 import S3Storage


def answer(
    status: int, code: str = "", message: str = "as a test wants", **more: Any
) -> ClientError:
    """What the client raises for an HTTP error."""
    return ClientError(
        {
            "Error": {"Code": code or str(status), "Message": message, **more},
            "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": 0},
        },
        "PutObject",
    )


def taken(*, named: bool = True) -> ClientError:
    """A 412, which some services send without naming the condition."""
    return answer(412, "PreconditionFailed", **({"Condition": "If-None-Match"} if named else {}))


def unreachable() -> EndpointConnectionError:
    return EndpointConnectionError(endpoint_url="http://secret-host.example:9000/bucket?x")


def timeout() -> ReadTimeoutError:
    return ReadTimeoutError(endpoint_url="http://secret-host.example:9000/bucket?x")


class Requests:
    """Stands before a storage's requests: counts them and lets some fail.

    Args:
        storage: Whose requests. It does not wait between attempts from then on.
    """

    def __init__(self, storage: S3Storage) -> None:
        self._request = storage.client.request
        self._before: dict[str, list[BaseException | None]] = {}
        self._after: dict[str, list[BaseException | None]] = {}
        self.made: list[str] = []
        self.arguments: list[dict[str, Any]] = []
        storage.client.request = self  # type: ignore[method-assign, assignment] # a fault is put here
        storage.client.retry_delays_s = (0.0,) * len(storage.client.retry_delays_s)

    def refuse(self, method: str, *errors: BaseException | None) -> None:
        """Let the next requests of *method* fail before they have an effect; None lets one pass."""
        self._before[method] = list(errors)

    def lose(self, method: str, *errors: BaseException | None) -> None:
        """Let the next requests of *method* have their effect, and then fail."""
        self._after[method] = list(errors)

    async def __call__(self, method: str, **arguments: Any) -> Any:
        self.made.append(method)
        self.arguments.append(arguments)
        if error := _next(self._before, method):
            raise error
        result = await self._request(method, **arguments)
        if error := _next(self._after, method):
            raise error
        return result


def _next(faults: dict[str, list[BaseException | None]], method: str) -> BaseException | None:
    waiting = faults.get(method)
    return waiting.pop(0) if waiting else None
