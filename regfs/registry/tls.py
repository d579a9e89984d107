"""TLS: one policy a host, contexts made once and only when first needed, and failures in words.

An own CA, or `--insecure`, holds for the connection's own host and for no other; a client certificate for its host and
port. Each host may have more in a folder of certs.d (see `host_certs`). All else is verified against the system's
authorities (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured), or certifi's where the system has none.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import trio

from regfs.connection import Connection
from regfs.errors import ConfigError
from regfs.reference import Address
from regfs.registry.host_certs import HostCertificates, Pair, certificates_of, show
from regfs.registry.records import Records


class TlsPolicy:
    """The contexts of one connection: one for each host that has something of its own, one for all others."""

    def __init__(self, connection: Connection, host: str) -> None:
        self._host = host
        self._ca = connection.ca
        self._insecure = connection.insecure
        self._authority = _authority_of(connection)
        self._pair = _pair_of(connection)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._keys: dict[str, str] = {}
        self._making: trio.Lock | None = None

    async def key(self, authority: str) -> str:
        """Which context a host is spoken to with: hosts of one key share one. ConfigError as for `context`.

        ``authority`` is ``host[:port]``, without a port that goes without saying.
        """
        if authority not in self._keys:
            await self.context(authority)
        return self._keys[authority]

    async def context(self, authority: str) -> ssl.SSLContext:
        """The context for ``host[:port]``. ConfigError where a CA, a certificate or a key of it cannot be used."""
        self._making = self._making or trio.Lock()
        async with self._making:
            if authority not in self._keys:
                # Reading some 150 certificates takes 10 to 100 ms: not on the loop.
                context = await trio.to_thread.run_sync(self._own, authority)
                self._keys[authority] = "" if context is None else authority
                if context is not None:
                    self._contexts[authority] = context
            key = self._keys[authority]
            if key not in self._contexts:
                self._contexts[key] = await trio.to_thread.run_sync(default_context)
            return self._contexts[key]

    def _own(self, authority: str) -> ssl.SSLContext | None:
        """What a host has of its own; None: nothing. Reads the disk."""
        if not authority:
            return None
        kept = certificates_of(authority)
        is_ours = _host_of(authority) == self._host
        pairs = [*kept.pairs]
        if self._pair is not None and authority == self._authority:
            pairs = [self._pair]
        if not (kept or pairs or (is_ours and (self._insecure or self._ca is not None))):
            return None
        context = self._verifying(kept, is_ours=is_ours)
        for pair in pairs:
            show(context, pair)
        return context

    def _verifying(self, kept: HostCertificates, *, is_ours: bool) -> ssl.SSLContext:
        if is_ours and self._insecure:
            return insecure_context()
        if is_ours and self._ca is not None:
            return ca_context(self._ca)
        context = default_context()
        for file in kept.authorities:
            _trust(context, file)
        return context


def _authority_of(connection: Connection) -> str:
    try:
        address = Address.parse(connection.address)
    except ValueError:
        return ""
    return authority(address.scheme or "https", address.host, address.port)


def authority(scheme: str, host: str, port: int | None) -> str:
    """``host[:port]`` as a folder of certs.d is called: without a port that is the scheme's own."""
    written = None if port in (None, {"https": 443, "http": 80}.get(scheme)) else port
    return Address(host.rstrip("."), written).authority


def _host_of(authority: str) -> str:
    try:
        return Address.parse(authority).host
    except ValueError:
        return ""


def _pair_of(connection: Connection) -> Pair | None:
    if connection.client_cert is None:
        return None
    return Pair(connection.client_cert, connection.client_key or connection.client_cert)


def default_context() -> ssl.SSLContext:
    """Verify against the system's authorities, or certifi's where there are none."""
    file = os.environ.get(ssl.get_default_verify_paths().openssl_cafile_env)
    if file and not os.access(file, os.R_OK):
        raise ConfigError(f"SSL_CERT_FILE names {file}, which cannot be read")
    context = ssl.create_default_context()
    if not _has_authorities(context):
        import certifi

        context.load_verify_locations(certifi.where())
    return _ours(context)


def ca_context(path: Path) -> ssl.SSLContext:
    """Verify against one file alone: a CA, or the server's own certificate. ConfigError where it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _trust(context, path)
    return _ours(context)


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=str(path))
    except ssl.SSLError:
        raise ConfigError(f"no certificate in PEM form in the CA file {path}") from None
    except OSError as error:
        raise ConfigError(f"the CA file {path} cannot be read: {error.strerror}") from None
    # Private authorities are often plainer than the strict profile wants, and may be an intermediate or the server's own.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def insecure_context() -> ssl.SSLContext:
    """Encrypt, and take any certificate: what `--insecure` asks for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _ours(context)


_ABOUT_US = ("certificate required", "alert bad certificate", "alert unknown ca", "alert certificate unknown")


def explain(where: str, error: ssl.SSLError, certificate: str = "") -> str:
    """Say in one line what was wrong with a handshake; ``certificate`` describes the one that was refused."""
    if isinstance(error, ssl.SSLCertVerificationError):
        which = f" ({certificate})" if certificate else ""
        return f"the certificate of {where}{which} is not accepted: {error.verify_message.rstrip('.')}"
    if not speaks_tls(error):
        return f"{where} does not speak TLS"
    reason = (error.reason or "handshake failed").lower().replace("_", " ")
    if any(word in reason for word in _ABOUT_US):
        return (
            f"{where} does not take the client certificate it was shown, or was shown none and wants one ({reason}):"
            " set client_cert, or put a pair into certs.d"
        )
    return f"the TLS handshake with {where} failed: {reason}"


def speaks_tls(error: ssl.SSLError) -> bool:
    """Say whether a failed handshake shows a TLS server all the same: it sent a certificate, or an alert."""
    return isinstance(error, ssl.SSLCertVerificationError) or "ALERT" in (error.reason or "")


def _ours(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    context.sslobject_class = Records
    return context


def _has_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    directory = ssl.get_default_verify_paths().capath
    try:
        return directory is not None and any(Path(directory).iterdir())
    except OSError:
        return False
