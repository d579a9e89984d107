"""What the fakes of services have in common: a host of their own, beside a `FakeRegistry` that holds what images hold."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from regfs.testing.fake import FakeRegistry
from regfs.testing.server import Server


class FakeService:
    """Serves within a ``with`` block, which ends with an AssertionError that names what no good client sends.

    A fake sets ``registry`` and ``server`` when it is made, and adds to ``violations`` as it is asked.
    """

    registry: FakeRegistry
    server: Server
    violations: list[str]

    def __enter__(self) -> Self:
        self.server.start()
        self.registry.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()
        self.registry.__exit__(kind, error, trace)
        wrong = self.wrong()
        if kind is None and wrong:
            raise AssertionError("requests that no good client sends:\n" + "\n".join(wrong))

    def wrong(self) -> Sequence[str]:
        """What is held against the client at the end, besides what the registry itself holds against it."""
        return self.violations
