"""What a request needs to be allowed to do, told from its method and path, so that a known challenge can be met at once."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from regfs.auth.tokens import Ask

_REPOSITORY: Final = re.compile(
    r"(.+)/(?:manifests/[^/]+|blobs/[^/]+|referrers/[^/]+|tags/list|blobs/uploads/.*)"
)
MAX_REMEMBERED: Final = 4096


class Kind(Enum):
    """Kinds of requests that registries ask the same rights for."""

    PING = "ping"
    CATALOG = "catalog"
    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    OTHER = "other"


_BY_METHOD: Final = {"GET": Kind.PULL, "HEAD": Kind.PULL, "DELETE": Kind.DELETE}
_ACTIONS: Final = {Kind.PULL: "pull", Kind.PUSH: "pull,push", Kind.DELETE: "delete"}


@dataclass(frozen=True, slots=True)
class Need:
    """A kind of request, and the repository it is about (empty for the whole registry)."""

    kind: Kind
    repository: str = ""

    @classmethod
    def of(cls, method: str, path: str, base: str) -> Need:
        """Read a request for ``path``, of a registry whose API is under ``base`` (``/v2/``)."""
        if not path.startswith(base):
            return cls(Kind.OTHER)
        rest = path.removeprefix(base)
        if not rest:
            return cls(Kind.PING)
        if rest == "_catalog":
            return cls(Kind.CATALOG)
        match = _REPOSITORY.fullmatch(rest)
        return cls(_BY_METHOD.get(method, Kind.PUSH), match[1]) if match else cls(Kind.OTHER)


class Lessons:
    """What a registry was seen to ask for. Nothing in it is secret."""

    def __init__(self) -> None:
        self._asks: OrderedDict[Need, Ask] = OrderedDict()
        self._pull: Ask | None = None
        self._basic: Ask | None = None
        self.last: Ask | None = None

    def learn(self, need: Need, ask: Ask) -> None:
        """Remember what a 401 asked for."""
        self.last = ask
        if need.kind is Kind.PULL:
            # Guessing is right only for a registry that asks in exactly the usual way.
            self._pull = ask if ask.scopes == _usual(need) and ask.scheme == "bearer" else None
        if need.kind is not Kind.CATALOG:
            # A registry may want Basic for its catalog alone (Harbor), and tokens for all else.
            self._basic = ask if ask.scheme == "basic" else None
        if self._guess(need) != ask:
            self._asks[need] = ask
            self._asks.move_to_end(need)
            if len(self._asks) > MAX_REMEMBERED:
                self._asks.popitem(last=False)
        else:
            self._asks.pop(need, None)

    def known(self, need: Need) -> Ask | None:
        """What the registry asked for the last time, for exactly this."""
        return self._asks.get(need)

    def expected(self, need: Need) -> Ask | None:
        """What it will ask for: known, or guessed from how it asks for the like."""
        return self._asks.get(need) or self._guess(need)

    def fallback(self, need: Need) -> Ask | None:
        """What a 401 without a challenge asks for: what is expected, or else the last challenge made to fit."""
        if (expected := self.expected(need)) is not None or self.last is None:
            return expected
        return with_scopes(replace(self.last, scopes=()), need)

    def _guess(self, need: Need) -> Ask | None:
        if need.kind is Kind.PULL and self._pull is not None:
            return Ask("bearer", self._pull.realm, self._pull.service, _usual(need))
        return self._basic


def with_scopes(ask: Ask, need: Need) -> Ask:
    """An ask for tokens that names no scope gets the one that such a request needs by the token specification."""
    if ask.scheme != "bearer" or ask.scopes:
        return ask
    if need.kind is Kind.CATALOG:
        return replace(ask, scopes=("registry:catalog:*",))
    actions = _ACTIONS.get(need.kind)
    return replace(ask, scopes=(f"repository:{need.repository}:{actions}",)) if actions else ask


def _usual(need: Need) -> tuple[str, ...]:
    return (f"repository:{need.repository}:pull",)
