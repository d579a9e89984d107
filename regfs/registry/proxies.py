"""Proxies by the standard environment variables: pure rules, and one look at the environment.

``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``, in lower case or (but for http_proxy under CGI) upper.
Loopback is never asked of a proxy: it would be the proxy's own machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from regfs.errors import ConfigError
from regfs.reference import Address
from regfs.registry.redirects import Origin

_SCHEMES = ("http", "https", "socks5", "socks5h")


def environment() -> Mapping[str, str]:
    """Return the proxies of the environment by scheme (``http``, ``https``, ``all``, ``no``)."""
    from urllib.request import getproxies

    return getproxies()


def proxy_for(origin: Origin, proxies: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for an origin; None: go there directly. ConfigError for a proxy we cannot speak to."""
    proxy = proxies.get(origin.scheme) or proxies.get("all")
    if not proxy or Address(origin.host).is_loopback or bypassed(origin, proxies.get("no", "")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = proxy.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise ConfigError(f"{origin.scheme}_proxy: proxies of kind {scheme[:20]!r} are not supported")
    return proxy


def bypassed(origin: Origin, no_proxy: str) -> bool:
    """Say whether ``no_proxy`` names an origin: ``*``, ``host``, ``.domain``, ``host:port``, an address or a network."""
    return any(_names(entry.strip().lower(), origin) for entry in no_proxy.split(",") if entry.strip())


def _names(entry: str, origin: Origin) -> bool:
    if entry == "*" or _holds(entry, origin.host):
        return True
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.startswith("[")):
        return int(port) == origin.port and _names(name.strip("[]"), origin)
    domain = entry.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
    return bool(domain) and (origin.host == domain or origin.host.endswith(f".{domain}"))


def _holds(network: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False
