"""``certs.d``: what Docker's and containers' tools keep for one host: authorities to trust, and a certificate to show.

A folder ``certs.d/HOST[:PORT]`` holds ``*.crt`` (authorities, beside the system's own) and pairs ``*.cert`` and ``*.key``.
The port counts as it is written: ``host`` and ``host:443`` are two folders. Source: containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regfs.errors import ConfigError

SYSTEM_PLACES: Final = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
"""Where certs.d folders are beside the user's own."""

MAX_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Pair:
    """A client certificate and its private key, in PEM files; they may be one file."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """What one host's folder holds."""

    authorities: Sequence[Path] = ()
    pairs: Sequence[Pair] = ()

    def __bool__(self) -> bool:
        return bool(self.authorities or self.pairs)


def places() -> Sequence[Path]:
    """The certs.d folders, the strongest first: ``~/.config/containers``, ``/etc/containers``, ``/etc/docker``."""
    home = os.environ.get("HOME") or str(Path.home())
    return (Path(home) / ".config" / "containers" / "certs.d", *SYSTEM_PLACES)


def certificates_of(authority: str) -> HostCertificates:
    """What the first folder that exists for ``host[:port]`` holds; reads the disk. ConfigError names what is wrong."""
    if authority in ("", ".", "..") or "/" in authority:
        return HostCertificates()
    for place in places():
        folder = place / authority
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            if not _is_there(folder):
                continue
            raise ConfigError(f"{folder} cannot be read: {error.strerror}") from error
        except OSError as error:
            raise ConfigError(f"{folder} cannot be read: {error.strerror}") from error
        if len(names) > MAX_FILES:
            raise ConfigError(f"{folder} holds more than {MAX_FILES} files")
        return _read(folder, names)
    return HostCertificates()


def show(context: ssl.SSLContext, pair: Pair) -> None:
    """Let a context show a client certificate. ConfigError names the file that cannot be used."""
    for file in {pair.certificate, pair.key}:
        _check_readable(file)
    try:
        context.load_cert_chain(str(pair.certificate), str(pair.key), password=_no_password)
    except _Encrypted:
        raise ConfigError(f"the key {pair.key} is encrypted: regfs takes one without a password") from None
    except ssl.SSLError as error:
        raise ConfigError(_unusable(pair, error)) from None
    except OSError as error:
        raise ConfigError(
            f"the client certificate {pair.certificate} cannot be read: {error.strerror}"
        ) from None


def _read(folder: Path, names: Sequence[str]) -> HostCertificates:
    authorities = [folder / name for name in names if name.endswith(".crt")]
    pairs = [_pair(folder, name, names) for name in names if name.endswith(".cert")]
    for name in names:
        if name.endswith(".key") and f"{name.removesuffix('.key')}.cert" not in names:
            raise ConfigError(
                f"{folder / name} has no certificate beside it: {name.removesuffix('.key')}.cert"
            )
    return HostCertificates(authorities, pairs)


def _pair(folder: Path, name: str, names: Sequence[str]) -> Pair:
    key = f"{name.removesuffix('.cert')}.key"
    if key not in names:
        raise ConfigError(f"{folder / name} has no key beside it: {key} (an authority's file ends in .crt)")
    return Pair(folder / name, folder / key)


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal of whoever started the daemon.
    raise _Encrypted


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            return
    except OSError as error:
        raise ConfigError(f"the client certificate's file {file} cannot be read: {error.strerror}") from None


def _unusable(pair: Pair, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key {pair.key} is not the key of the certificate {pair.certificate}"
    where = f"{pair.certificate}" if pair.certificate == pair.key else f"{pair.certificate} and {pair.key}"
    return (
        f"{where} hold no client certificate and key in PEM form ({(error.reason or 'unreadable').lower()})"
    )


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:
        return False
