"""Content by digest that is kept here: in memory, on disk, and while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from regfs.digest import Digest
from regfs.errors import DigestMismatch

if TYPE_CHECKING:
    from hashlib import _Hash


class ContentStore(Protocol):
    """Verified content by digest. What is put is already verified; what is got needs no check."""

    async def get(self, digest: Digest) -> bytes | None:
        """The whole content, or None."""
        ...

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep it, if there is room. Never raises for want of room."""
        ...


Fetch = Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""A content's bytes from an offset on, as `Source.blob` gives them."""


@dataclass(frozen=True)
class Mark:
    """What the first ``offset`` bytes of a content hash to, whatever comes behind them."""

    offset: int
    hex: str


@dataclass(frozen=True, eq=False)
class Rest:
    """Where somebody may go on with a content that a store can't go on with: at ``offset``, with what was hashed up to there.

    ``chunks`` came behind that, and some of it was read. ``mark`` is behind them.
    """

    offset: int
    hashed: _Hash
    chunks: Sequence[bytes | memoryview]
    mark: Mark

    @classmethod
    def behind(cls, offset: int, hashed: _Hash, chunks: Sequence[bytes | memoryview]) -> Rest:
        """Hash the chunks for the mark behind them: some MiB, so in a thread."""
        ahead, end = hashed.copy(), offset
        for chunk in chunks:
            ahead.update(chunk)
            end += len(chunk)
        return cls(offset, hashed, chunks, Mark(end, ahead.hexdigest()))


class OpenContent(Protocol):
    """Content by digest that can be read in any order, and that no store removes, until it is closed."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def verified(self) -> bool:
        """Whether all of it was verified by its digest."""
        ...

    @property
    def descriptor(self) -> int | None:
        """Of a file that holds this content from its first byte to its last, while it is open; None: there is no such file."""
        ...

    async def read(self, start: int, length: int) -> bytes | None:
        """``length`` bytes from offset ``start``, fewer only at the end.

        None: they are not there, and will not be; ask the registry.
        """
        ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


class ContentWriter(Protocol):
    """The right, and with it the duty, to fetch what is missing of a content that others read."""

    @property
    def follows(self) -> bool:
        """Whether another process brings the bytes, and nothing is fetched as long as that goes on."""
        ...

    async def fill(self, fetch: Fetch, moved: Callable[[], None] = ...) -> None:
        """Fetch it to its verified end; ends early, without an error, where nobody reads any more or the disk is full.

        Where it `follows`, ``moved`` is called whenever something came.

        A transfer that was broken off is taken up where it was, as long as each brings something. Raises DigestMismatch,
        and what ``fetch`` raises; those who read get the same.
        """
        ...


class ArrivingContent(OpenContent, Protocol):
    """Content that is read while it arrives.

    Its `read` waits for the bytes, and where they are its last ones also for the word that all were right. It raises
    DigestMismatch once they were not, and what ended the fetching.
    """

    def claim(self) -> ContentWriter | None:
        """Whoever gets it must let it fill at once. None: another does already, or nothing is missing."""
        ...

    @property
    def head(self) -> int:
        """How many bytes came in order from the first one on, and are there."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the store can't go on with it: what is not there comes from elsewhere, behind its `rest`."""
        ...

    def condemn(self, error: DigestMismatch) -> None:
        """What came behind its `rest` proved that something is wrong: nobody reads more of it, and nothing of it stays."""
        ...

    async def rest(self) -> Rest:
        """What came in order so far, for who goes on with it elsewhere."""
        ...

    async def read(self, start: int, length: int, *, in_order: bool = False) -> bytes | None:
        """See `OpenContent.read`. ``in_order``: only what came in order from the first byte on, and no range by itself."""
        ...

    def missing(self, offset: int) -> int:
        """How many bytes have to arrive before the one at ``offset`` does, for who may fetch a range instead. 0: it is there."""
        ...

    async def await_verdict(self) -> None:
        """Wait until all of it is verified, it proved to be wrong, or the one who fetched it ended."""
        ...

    def is_proven(self, start: int, end: int) -> bool:
        """Whether that range was verified, by the content's digest or one of its own."""
        ...

    async def put(self, start: int, data: bytes, *, proven: bool = False) -> bool:
        """Keep a range that was fetched by itself; ``proven``: it was verified by a digest of its own. False: there is no room."""
        ...


class BlobStore(ContentStore, Protocol):
    """A ContentStore that also holds content too large for memory, content that is arriving, and what is made from it.

    Nothing here raises for what a disk may do: what can't be kept is not there.
    """

    async def open(self, digest: Digest, size: int) -> OpenContent | None:
        """Verified content of that size, or None."""
        ...

    async def download(self, digest: Digest, size: int) -> ArrivingContent | None:
        """Content of which not all is there, one for all who ask. None: there is no place for it; read without the store."""
        ...

    async def open_derived(self, digest: Digest, name: str, version: int) -> OpenContent | None:
        """What was made from a content and kept under ``name``, in that version of its format, and not written to since; or None.

        What a disk lost by itself is not noticed: who makes something of it has a hash of its own in it.
        """
        ...

    async def put_derived(self, digest: Digest, name: str, version: int, chunks: Iterable[bytes]) -> None:
        """Keep it, if there is room; it goes when its content goes, or before. ``chunks`` are made in a thread, one by one."""
        ...
