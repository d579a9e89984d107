"""Rules for the calls of a `MemorySource`: hold them at a gate, delay them, or make them fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import trio


class Call(NamedTuple):
    """One call of a Source: ``method`` is check, tags, manifest, blob, repositories, resolve, delete_tag,
    delete_repository or recover; ``reference`` is a tag or digest, where there is one."""

    method: str
    repository: str = ""
    reference: str = ""


@dataclass
class Gate:
    """Holds calls until it is opened. ``waiting`` is how many wait now, ``arrived`` how many ever came."""

    waiting: int = 0
    arrived: int = 0
    _opened: trio.Event = field(default_factory=trio.Event)

    def open(self) -> None:
        """Let all waiting calls go on, and all later ones through."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Wait until the gate is open."""
        self.waiting += 1
        self.arrived += 1
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1


@dataclass
class Rule:
    """What happens to the calls that fit; None fits anything. ``times`` counts down, None is for ever."""

    method: str | None
    repository: str | None
    reference: str | None
    times: int | None
    error: BaseException | None = None
    gate: Gate | None = None
    seconds: float = 0.0

    def fits(self, call: Call) -> bool:
        """Whether the rule is for this call."""
        wanted = (self.method, self.repository, self.reference)
        return self.times != 0 and all(w is None or w == c for w, c in zip(wanted, call, strict=True))

    async def apply(self) -> None:
        """Do to a call what the rule says."""
        if self.times is not None:
            self.times -= 1
        if self.gate is not None:
            await self.gate.pass_through()
        if self.seconds:
            await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
