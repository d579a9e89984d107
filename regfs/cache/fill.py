"""Fetch what is missing of a content: from where it is on, again where it was broken off, to its verified end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regfs.errors import ConnectionFailed, DeadlineExceeded
from regfs.ports import Fetch

if TYPE_CHECKING:
    from regfs.cache.writer import Writer

_FRUITLESS: Final = 3
"""How often in a row a transfer may be broken off without having brought anything."""


async def fill(writer: Writer, fetch: Fetch) -> None:
    """Write all that is missing and verify it. Ends early where nobody reads any more, or the disk takes no more.

    A transfer that was broken off is taken up where it was, as long as each brings something. Raises DigestMismatch,
    and what ``fetch`` raises; those who read get the same.
    """

    async def work(writer: Writer) -> None:
        fruitless = 0
        while writer.offset < writer.size and writer.is_wanted:
            before = writer.offset
            try:
                await _transfer(writer, fetch)
                break
            except (ConnectionFailed, DeadlineExceeded):
                fruitless = fruitless + 1 if writer.offset == before else 0
                if fruitless >= _FRUITLESS:
                    raise
        await writer.finish()

    await writer.run(work)


async def _transfer(writer: Writer, fetch: Fetch) -> None:
    async with fetch(writer.offset) as chunks:
        async for chunk in chunks:
            if not await writer.write(chunk):
                return
