"""Save ids whose packs lie in folders known beforehand.

Packs lie in a folder named after the last two digits of their save's id, which are random: once in
256 times a folder is there already, and a save makes four operations less. Where operations are
counted in one run and one of them is hit in another, both must make the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from unittest import mock
from uuid import UUID

from uuid_utils.compat import uuid7

from ckptstore.saving import attempts, save
from ckptstore.upkeep import transfer

PREPARING, ACTING, RECOVERING = 0x00, 0x40, 0x80
"""Where the folders of each phase begin: what one phase writes is in nobody else's folder."""
PHASE = 0x40


@contextmanager
def in_folders_from(first: int) -> Iterator[None]:
    """Have this process's saves lie in the folders *first*, *first* + 1 and so on."""
    numbers = count()

    def save_id() -> UUID:
        return UUID(bytes=uuid7().bytes[:-1] + bytes([first + next(numbers) % PHASE]))

    with ExitStack() as patched:
        for module in (attempts, save, transfer):
            patched.enter_context(mock.patch.object(module, "uuid7", save_id))
        yield
