"""Where one registry is, and which of http and https it speaks: no I/O, only what has been learned so far."""

from __future__ import annotations

from collections.abc import Sequence

from regfs.connection import Connection
from regfs.errors import ConfigError, Refused, UnsafeTarget
from regfs.reference import Address
from regfs.registry.redirects import Origin, check_spelling, resolve

_PORTS = {"http": 80, "https": 443}


def schemes_for(address: Address, *, insecure: bool) -> tuple[str, ...]:
    """Return the schemes to try, in order; the first that answers is kept.

    A scheme that the user wrote is the only one. Without one: https alone; on loopback http first, since that is what
    runs there and costs one round trip; where the user said insecure, https first, so that what can be encrypted is.
    """
    if address.scheme:
        return (address.scheme,)
    if address.is_loopback:
        return ("http", "https")
    return ("https", "http") if insecure else ("https",)


class Site:
    """One registry's (or its service's) place: host, port, path prefix, and the scheme once it is known."""

    def __init__(
        self,
        connection: Connection,
        schemes: Sequence[str] | None = None,
        *,
        root: str = "v2/",
        sign_in: str = "",
    ) -> None:
        """``root``: where below the address the API begins, with a slash at its end where it is not empty.

        ``sign_in``: the path below it where one signs in, if the API has one.
        """
        try:
            self.address = Address.parse(connection.address)
        except ValueError as error:
            raise ConfigError(f"not a registry's address: {error}") from None
        self.host = self.address.host.rstrip(".")
        self.name = str(self.address)
        self.api = f"/{self.address.prefix}/{root}" if self.address.prefix else f"/{root}"
        """The path below which the registry's API is."""
        self._sign_in = sign_in
        self._is_v2 = root == "v2/"
        self._origins = {
            scheme: Origin(scheme, self.host, self.address.port or _PORTS[scheme]) for scheme in _PORTS
        }
        self.schemes = tuple(schemes or schemes_for(self.address, insecure=connection.insecure))
        """The schemes that are still possible, in the order to try."""
        self._may_be_plain = connection.insecure or self.address.is_loopback

    def check(self) -> None:
        """Raise Refused where the user asks for plain http without allowing it."""
        if self.schemes == ("http",) and not self._may_be_plain:
            raise Refused(
                f"plain http to {self.address.authority} sends everything readable: allowed only with --insecure",
                registry=self.name,
            )

    def settle(self, scheme: str) -> None:
        """Keep to the scheme that answered. The first answer decides."""
        if len(self.schemes) > 1:
            self.schemes = (scheme,)

    def origin(self, scheme: str) -> Origin:
        """The registry's origin if it speaks ``scheme``."""
        return self._origins[scheme]

    def base(self, scheme: str | None = None) -> str:
        """``https://host[:port]/prefix/v2/``: where the registry's API begins."""
        return f"{scheme or self.schemes[0]}://{self.address.authority}{self.api}"

    def url(self, target: str, scheme: str) -> str:
        """Return ``target`` (below ``/v2/``, or an absolute URL) as an absolute URL. UnsafeTarget if it leaves ``/v2/``."""
        if target.startswith(("http://", "https://")):
            return resolve(target, target)
        path = target.partition("?")[0]
        if target.startswith("/") or any(part in (".", "..") for part in path.split("/")):
            raise UnsafeTarget(f"not a path of the registry's API: {path[:80]!r}", registry=self.name)
        check_spelling(target)
        return self.base(scheme) + target

    def is_sign_in(self, api_path: str) -> bool:
        """Say whether a POST to ``api_path`` signs in and changes nothing.

        Gitea and others keep their token endpoint at ``/v2/token``: what changes a registry has more than one component.
        """
        if api_path and api_path == self._sign_in:
            return True
        return self._is_v2 and api_path != "" and "/" not in api_path

    def is_own(self, origin: Origin) -> bool:
        """Say whether ``origin`` is the registry itself, by a scheme that is still possible."""
        return any(self._origins[scheme].serves(origin) for scheme in self.schemes)

    def api_path(self, origin: Origin, path: str) -> str | None:
        """Return what follows ``/v2/`` in an own URL; None for any other URL (a token endpoint beside it)."""
        return path.removeprefix(self.api) if path.startswith(self.api) and self.is_own(origin) else None
