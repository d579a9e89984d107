"""Decoded blocks and stopped decoders, of all layers of a mount together, within a budget: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from regfs.image.codecs import Decoder

BLOCK: Final = 128 * 1024
"""Bytes of an archive that are decoded and kept together: what the kernel asks for at once."""

V = TypeVar("V")


class Bounded(Generic[V]):
    """A mapping whose values weigh at most ``limit`` together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self.weight = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._items

    def get(self, key: Hashable) -> V | None:
        """The value, which is then the most recently used one."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: Hashable, value: V, weight: int) -> None:
        """Keep it, if it fits at all."""
        self.pop(key)
        if weight > self._limit:
            return
        self._items[key] = value, weight
        self.weight += weight
        while self.weight > self._limit:
            _, (_, gone) = self._items.popitem(last=False)
            self.weight -= gone

    def pop(self, key: Hashable) -> V | None:
        """Take it out."""
        if key not in self._items:
            return None
        value, weight = self._items.pop(key)
        self.weight -= weight
        return value


class Cursor:
    """A decoder that stands somewhere in an archive, with the part of a block that it has decoded last.

    ``at``: the layer's next byte that it needs. ``out``: where in the archive it stands. Not for two threads at once.
    """

    def __init__(self, decoder: Decoder, at: int) -> None:
        self._decoder = decoder
        self.at = at
        self.passed: list[bytes] = []
        """Whole blocks that it came past, one behind the other, from where someone wants them."""
        self._begin = decoder.out
        self._parts: list[bytes] = []

    @property
    def out(self) -> int:
        """Where in the archive it stands."""
        return self._decoder.out

    @property
    def weight(self) -> int:
        """Bytes of memory it takes, about."""
        return self._decoder.weight + BLOCK * (1 + len(self.passed)) + sum(map(len, self._parts))

    @property
    def ended(self) -> bool:
        """Whether the archive's data has ended here."""
        return self._decoder.ended

    def give(self, start: int, data: bytes) -> None:
        """The layer's bytes from ``start`` on, with those at ``at``."""
        self._decoder.give(data[self.at - start :])
        self.at = start + len(data)

    def run(self, target: int, most: int) -> tuple[dict[int, bytes], bool]:
        """Decode up to ``target``, ``most`` bytes at once: the whole blocks that came of it, by number, and whether more must be given.

        Raises Corrupt, OverLimit.
        """
        decoder, blocks = self._decoder, dict[int, bytes]()
        end = min(target, decoder.out + most)
        while decoder.out < end:
            data = decoder.take(min(end, (decoder.out // BLOCK + 1) * BLOCK) - decoder.out)
            if not data:
                return blocks, True
            self._parts.append(data)
            if decoder.out % BLOCK == 0:
                block = b"".join(self._parts)
                if self._begin % BLOCK == 0:
                    blocks[self._begin // BLOCK] = block
                self._begin, self._parts = decoder.out, []
        return blocks, False

    def partial(self) -> tuple[int, bytes]:
        """Where the block begins in which it stands, as far as it was decoded, and that part of it."""
        return self._begin, b"".join(self._parts)
