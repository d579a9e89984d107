"""Where one registry is, and which of http and https it speaks: no I/O, only what has been learned so far."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from regfs.connection import Connection
from regfs.errors import ConfigError, Refused, UnsafeTarget
from regfs.reference import Address
from regfs.registry.redirects import Origin, resolve

_DEFAULT_PORTS = {"http": 80, "https": 443}


def schemes_for(address: Address, *, insecure: bool) -> tuple[str, ...]:
    """Return the schemes to try, in order; the first that answers is kept.

    A scheme that the user wrote is the only one; plain http then needs ``insecure`` or a loopback address (Refused).
    Without one: https alone; on loopback http first, since that is what runs there and costs one round trip;
    where the user said insecure, https first, so that what can be encrypted is.
    """
    if address.scheme == "http" and not (insecure or address.is_loopback):
        raise Refused(
            f"plain http to {address.authority} sends everything readable: allowed only with --insecure",
            registry=str(address),
        )
    if address.scheme:
        return (address.scheme,)
    if address.is_loopback:
        return ("http", "https")
    return ("https", "http") if insecure else ("https",)


class Site:
    """One registry's place: host, port, path prefix, and the scheme once it is known."""

    def __init__(self, connection: Connection, schemes: Sequence[str] | None = None) -> None:
        try:
            self.address = Address.parse(connection.address)
        except ValueError as error:
            raise ConfigError(f"not a registry's address: {error}") from None
        self.host = self.address.host.rstrip(".")
        self.name = str(self.address)
        self._connection = connection
        self._schemes = tuple(schemes) if schemes is not None else None

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that are still possible, in the order to try. Refused where the user allowed none."""
        if self._schemes is None:
            self._schemes = schemes_for(self.address, insecure=self._connection.insecure)
        return self._schemes

    def settle(self, scheme: str) -> None:
        """Keep to the scheme that answered. The first answer decides."""
        if len(self.schemes) > 1:
            self._schemes = (scheme,)

    def origin(self, scheme: str) -> Origin:
        """The registry's origin if it speaks ``scheme``."""
        return Origin(scheme, self.host, self.address.port or _DEFAULT_PORTS[scheme])

    def base(self, scheme: str | None = None) -> str:
        """``https://host[:port]/prefix/v2/``: where the registry's API begins."""
        prefix = f"/{self.address.prefix}" if self.address.prefix else ""
        return f"{scheme or self.schemes[0]}://{self.address.authority}{prefix}/v2/"

    def url(self, target: str, scheme: str) -> str:
        """Return ``target`` (below ``/v2/``, or an absolute URL) as an absolute URL. UnsafeTarget if it leaves ``/v2/``."""
        if target.startswith(("http://", "https://")):
            return resolve(target, target)
        path = target.partition("?")[0]
        if target.startswith("/") or any(part in (".", "..") for part in path.split("/")):
            raise UnsafeTarget(f"not a path of the registry's API: {path[:80]!r}", registry=self.name)
        return resolve(self.base(scheme), self.base(scheme) + target)

    def is_own(self, origin: Origin) -> bool:
        """Say whether ``origin`` is the registry itself, by a scheme that is still possible."""
        return any(self.origin(scheme).serves(origin) for scheme in self.schemes)

    def api_path(self, url: str) -> str | None:
        """Return what follows ``/v2/`` in an own URL; None for any other URL (a token endpoint beside it)."""
        parts = urlsplit(url)
        prefix = urlsplit(self.base()).path
        if (
            parts.hostname is None
            or parts.hostname.rstrip(".") != self.host
            or not self.is_own(Origin.of(url))
        ):
            return None
        return parts.path.removeprefix(prefix) if parts.path.startswith(prefix) else None
