"""What goes wrong at a `FakeRegistry`, and when: failures, resets, truncation, delays, and gates that hold requests."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from regfs.testing.records import RequestRecord, Where, fits
from regfs.testing.replies import Reply, code_of, error_reply


class Gate:
    """Holds requests until it is opened. ``waiting`` is how many wait now, ``arrived`` how many ever came."""

    def __init__(self) -> None:
        self.waiting = 0
        self.arrived = 0
        self._opened = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._open = False

    def open(self) -> None:
        """Let all waiting requests go on, and all later ones through. From any thread."""
        self._open = True
        if self._token is not None:
            try:
                self._token.run_sync_soon(self._opened.set)
            except trio.RunFinishedError:
                return

    async def pass_through(self) -> None:
        """Wait, in the server, until the gate is open."""
        self.arrived += 1
        if self._open:
            return
        self._token = trio.lowlevel.current_trio_token()
        self.waiting += 1
        try:
            if not self._open:
                await self._opened.wait()
        finally:
            self.waiting -= 1


@dataclass
class Fault:
    """What happens to the requests that are meant; ``times`` counts down, None is for ever.

    The kinds: a ``status`` instead of the reply; ``reset`` of the connection before a reply; the body ``cut_at`` so
    many bytes and the connection closed; ``seconds`` of delay; a ``gate``, before the reply or (``gate_at``) in its
    body.
    """

    where: Where = None
    times: int | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    reset: bool = False
    cut_at: int | None = None
    seconds: float = 0.0
    gate: Gate | None = None
    gate_at: int | None = None

    def takes(self, record: RequestRecord) -> bool:
        """Whether it happens to that request; counts it if so."""
        if self.times == 0 or not fits(self.where, record):
            return False
        if self.times is not None:
            self.times -= 1
        return True

    @property
    def ends_it(self) -> bool:
        """Whether the request gets no real reply."""
        return self.status is not None or self.reset

    @property
    def reply(self) -> Reply | None:
        """The reply that stands in place of the real one."""
        if self.status is None:
            return None
        return error_reply(self.status, code_of(self.status), "as the test arranged", *self.headers)


@dataclass
class Fate:
    """What all faults together do to one request."""

    reply: Reply | None = None
    reset: bool = False
    cut_at: int | None = None
    gate: Gate | None = None
    gate_at: int | None = None


@dataclass
class Faults:
    """The faults that a test arranged, in order."""

    rules: list[Fault] = field(default_factory=list)

    async def strike(self, record: RequestRecord) -> Fate:
        """Delay or hold the request, and say what else happens to it.

        A failure that is not the request's first one is kept for a later request: of 429 once and 503 twice, the
        next three requests get one each.
        """
        fate = Fate()
        for rule in list(self.rules):
            if (rule.ends_it and (fate.reply or fate.reset)) or not rule.takes(record):
                continue
            if rule.seconds:
                await trio.sleep(rule.seconds)
            if rule.gate is not None and rule.gate_at is None:
                await rule.gate.pass_through()
            if rule.ends_it:
                fate.reply, fate.reset = rule.reply, rule.reset
            fate.cut_at = rule.cut_at if fate.cut_at is None else fate.cut_at
            if rule.gate_at is not None:
                fate.gate, fate.gate_at = rule.gate, rule.gate_at
        return fate
