"""The connections that `regfs login` made: a small file beside the config, without secrets."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regfs import config_values as values
from regfs.config import config_home
from regfs.connection import Connection
from regfs.errors import ConfigError
from regfs.reference import is_connection_name

if TYPE_CHECKING:
    from regfs.config import Settings

MAX_STORE: Final = 1024 * 1024
"""The largest store read, in bytes."""

_VERSION: Final = 1
_CHECKS: Final[Mapping[str, values.Check]] = {
    **values.REGISTRY,
    "generation": values.text,
    "account": values.text,
}


def checked(field: str, value: object) -> Any:
    """A connection's field, typed. ValueError with the reason: there is no such field, or not with that value."""
    if field not in _CHECKS:
        raise ValueError("a connection has no such field")
    return _CHECKS[field](value)


class ConnectionStore:
    """Connections on disk. Written whole and atomically, mode 0600, one writer at a time."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_home() / "connections.json"

    def load(self) -> tuple[Connection, ...]:
        """All connections, in the order in which they were first saved. ConfigError: the file cannot be used."""
        return tuple(map(self._usable, self._tables()))

    def save(self, connection: Connection) -> None:
        """Keep a connection, in place of one of the same name. ConfigError: it cannot be kept."""
        table = self._table(connection)
        with self._locked():
            kept = {known.name: self._table(known) for known in self.load()}
            self._write([*(kept | {connection.name: table}).values()])

    def remove(self, name: str) -> bool:
        """Forget a connection, also one that cannot be used; False where there was none. ConfigError: the file is damaged."""
        with self._locked():
            kept = self._tables()
            left = [table for table in kept if _name_in(table) != name]
            if len(left) < len(kept):
                self._write(left)
            return len(left) < len(kept)

    def find(self, name: str) -> Connection | None:
        """The connection of that name, or, where it cannot be used, what of it says where its credential is; None: none."""
        for table in self._tables():
            if _name_in(table) == name:
                try:
                    return _connection(table)
                except ValueError:
                    return Connection(
                        name, str(table.get("address", "")), account=str(table.get("account", ""))
                    )
        return None

    def fingerprint(self) -> object:
        """Something that differs whenever the file has changed; costs one stat."""
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _tables(self) -> list[Any]:
        """What the file holds, unchecked. ConfigError: it holds something else."""
        try:
            with self.path.open("rb") as stream:
                raw = stream.read(MAX_STORE + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from error
        return self._parsed(raw)

    def _usable(self, table: object) -> Connection:
        try:
            return _connection(table)
        except (ValueError, TypeError) as error:
            name = _name_in(table)
            remedy = self._start_again()
            if is_connection_name(name):
                remedy = (
                    f"`regfs registries remove {name}` forgets that one; then run `regfs login` for it again"
                )
            raise ConfigError(
                f"{self.path} is damaged (the connection {name[:128]!r}: {str(error)[:200]}); {remedy}"
            ) from error

    def _start_again(self) -> str:
        return f"move it away (mv {self.path} {self.path}.bad) and run `regfs login` for each registry"

    def _parsed(self, raw: bytes) -> list[Any]:
        try:
            if len(raw) > MAX_STORE:
                raise ValueError(f"over the limit of {MAX_STORE} bytes")  # noqa: TRY301
            document = json.loads(raw)
            if document["version"] != _VERSION:
                raise ValueError(f"its version is not {_VERSION}: another regfs wrote it")  # noqa: TRY301
            return list(document["connections"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(
                f"{self.path} is damaged ({type(error).__name__}: {str(error)[:200]}); {self._start_again()}"
            ) from error

    def _table(self, connection: Connection) -> dict[str, object]:
        """What is written: only what differs from the default, and only what a later load accepts."""
        table: dict[str, object] = {"name": connection.name}
        for field in fields(connection):
            value = getattr(connection, field.name)
            if field.name != "name" and value != field.default:
                table[field.name] = _plain(value)
        try:
            _connection(table)
        except ValueError as error:
            raise ConfigError(f"the connection {connection.name[:128]!r} cannot be kept: {error}") from error
        return table

    def _write(self, tables: list[dict[str, object]]) -> None:
        data = json.dumps({"version": _VERSION, "connections": tables}, indent=2).encode() + b"\n"
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(descriptor)
                Path(name).replace(self.path)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: two sign-ins at once must both be kept."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def all_connections(settings: Settings, store: ConnectionStore) -> tuple[Connection, ...]:
    """The config's registries and the store's; of one name, the config's, with what the sign-in added to it."""
    stored = {connection.name: connection for connection in store.load()}
    configured = {c.name: _signed_in(c, stored) for c in settings.registries}
    return tuple((configured | {n: c for n, c in stored.items() if n not in configured}).values())


def find_connection(
    text: str, connections: Iterable[Connection], username: str = ""
) -> tuple[Connection, str] | None:
    """The connection that ``text`` begins with, by name or address, and what follows it, without slashes at its ends.

    The longest match wins, so that of two accounts on a host each has its own namespaces; then a name before an address;
    then the account of ``username``, where that is given; then the first.
    """
    wanted = _comparable(text)
    candidates = sorted(connections, key=lambda known: bool(username) and known.username != username)
    best: tuple[int, Connection] | None = None
    for spelling in ("name", "address"):
        for connection in candidates:
            known = _comparable(getattr(connection, spelling))
            if (wanted == known or wanted.startswith(f"{known}/")) and (best is None or len(known) > best[0]):
                best = len(known), connection
    return None if best is None else (best[1], wanted[best[0] :].strip("/"))


def _comparable(text: str) -> str:
    """Without scheme and the slashes at its end, the host in lower case."""
    rest = re.sub(r"^https?://", "", text.strip(), flags=re.IGNORECASE).rstrip("/")
    if rest.startswith("oci:"):
        return rest
    host, slash, path = rest.partition("/")
    return f"{host.lower()}{slash}{path}"


def _signed_in(configured: Connection, stored: Mapping[str, Connection]) -> Connection:
    """A sign-in counts only for the address that it was made for: the one of that name, else the first of that user."""
    fitting = [
        known
        for known in stored.values()
        if known.address == configured.address and configured.username in ("", known.username)
    ]
    fitting.sort(key=lambda known: known.name != configured.name)
    if not fitting:
        return configured
    known = fitting[0]
    return replace(configured, username=known.username, account=known.account, generation=known.generation)


def _name_in(table: object) -> str:
    return str(table.get("name", "")) if isinstance(table, dict) else ""


def _connection(table: object) -> Connection:
    """ValueError with the reason; what a newer regfs may have added is passed over."""
    if not isinstance(table, dict):
        raise ValueError("a connection is no table")  # noqa: TRY004 - the file is wrong, not the code
    name = values.text(table.get("name"))
    if not is_connection_name(name):
        raise ValueError(f"not a connection's name: {name[:80]!r}")
    if "address" not in table:
        raise ValueError(f"{name} has no address")
    checked: dict[str, Any] = {}
    for key, check in _CHECKS.items():
        if key in table:
            try:
                checked[key] = check(table[key])
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
    return Connection(name=name, **checked)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return dict(value) if isinstance(value, tuple) and value and isinstance(value[0], tuple) else value
