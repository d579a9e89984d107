"""The options that say what a connection is: of `regfs login` and `regfs registries add` alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from regfs.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_FILE: Final = click.Path(path_type=Path)
_OPTIONS: Final = (
    click.option(
        "--provider", metavar="P", help="The kind of registry; found by its address where not given."
    ),
    click.option("--auth", metavar="A", help="The auth method; the provider's own where not given."),
    click.option(
        "--insecure", is_flag=True, help="Allow plain http, and a certificate that cannot be verified."
    ),
    click.option("--ca", type=_FILE, metavar="FILE", help="Trust this CA (PEM) for this registry."),
    click.option(
        "--client-cert", type=_FILE, metavar="FILE", help="Show this client certificate (PEM) to it."
    ),
    click.option(
        "--client-key", type=_FILE, metavar="FILE", help="The certificate's key, if not in the same file."
    ),
    click.option(
        "--namespace", multiple=True, metavar="NS", help="Show this folder although it is not listed."
    ),
    click.option(
        "--only", multiple=True, metavar="PATTERN", help="Show only repositories like this: team/*."
    ),
    click.option("--option", multiple=True, metavar="KEY=VALUE", help="A setting of the provider's own."),
)


def connection_options(command: F) -> F:
    """Give a command these options; its function takes them as `Given` does, by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Given:
    """What the options said."""

    provider: str | None
    auth: str | None
    insecure: bool
    ca: Path | None
    client_cert: Path | None
    client_key: Path | None
    namespace: Sequence[str]
    only: Sequence[str]
    option: Sequence[str]

    def fields(self) -> dict[str, Any]:
        """The fields of a connection that were given, checked. UsageError, and ConfigError for files of no use."""
        if self.client_key and not self.client_cert:
            raise click.UsageError("--client-key is the key of a certificate: give --client-cert too")
        found: dict[str, Any] = {
            "insecure": self.insecure,
            "ca": authority_file(self.ca) if self.ca else None,
            "namespaces": _checked("--namespace", "namespaces", self.namespace),
            "only": _checked("--only", "only", self.only),
            "options": given_options(self.option),
        }
        if self.client_cert:
            found |= client_files(self.client_cert, self.client_key)
        return {name: value for name, value in found.items() if value}


def given_options(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """``KEY=VALUE`` as a connection's options. UsageError: not of that shape, or a secret by its name."""
    table = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--option takes KEY=VALUE, and {key[:40]!r} has no value")
        table[key] = value
    options: tuple[tuple[str, str], ...] = _checked("--option", "options", table)
    return options


def authority_file(ca: Path) -> Path:
    """The CA's absolute path, since a daemon reads it later from elsewhere. ConfigError: it is no CA file."""
    import ssl

    path = ca.absolute()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(path))
    except ssl.SSLError as error:
        raise ConfigError(
            f"--ca {ca}: it holds no certificate in PEM form ({error.reason or 'unreadable'})"
        ) from error
    except OSError as error:
        raise ConfigError(f"--ca {ca}: {error.strerror}") from error
    return path


def client_files(certificate: Path, key: Path | None) -> dict[str, Path]:
    """Both files' absolute paths, as a connection has them. ConfigError: they are no certificate with its key."""
    import ssl

    from regfs.registry.host_certs import Pair, show

    show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), Pair(certificate, key or certificate))
    found = {"client_cert": certificate.absolute()}
    return found if key is None else found | {"client_key": key.absolute()}


def _checked(option: str, field: str, value: object) -> Any:
    from regfs.connections import checked

    try:
        return checked(field, value)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
