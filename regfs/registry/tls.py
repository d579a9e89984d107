"""TLS: one policy a host, contexts made once and only when first needed, and failures in words.

An own CA, or `--insecure`, holds for the connection's own host and for no other. Every other host is verified against
the system's authorities (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured), or certifi's where the system has none.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import trio

from regfs.connection import Connection
from regfs.errors import ConfigError


class TlsPolicy:
    """The contexts of one connection."""

    def __init__(self, connection: Connection, host: str) -> None:
        self._host = host
        self._ca = connection.ca
        self._insecure = connection.insecure
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._making: trio.Lock | None = None

    def is_special(self, host: str) -> bool:
        """Say whether a host has a policy of its own."""
        return host == self._host and (self._insecure or self._ca is not None)

    async def context(self, host: str) -> ssl.SSLContext:
        """Return the context for a host. ConfigError where the CA file cannot be used."""
        special = self.is_special(host)
        if special not in self._contexts:
            self._making = self._making or trio.Lock()
            async with self._making:
                if special not in self._contexts:
                    # Reading some 150 certificates takes 10 to 100 ms: not on the loop.
                    make = self._own if special else default_context
                    self._contexts[special] = await trio.to_thread.run_sync(make)
        return self._contexts[special]

    def _own(self) -> ssl.SSLContext:
        return insecure_context() if self._insecure else ca_context(self._ca or Path())


def default_context() -> ssl.SSLContext:
    """Verify against the system's authorities, or certifi's where there are none."""
    file = os.environ.get(ssl.get_default_verify_paths().openssl_cafile_env)
    if file and not os.access(file, os.R_OK):
        raise ConfigError(f"SSL_CERT_FILE names {file}, which cannot be read")
    context = ssl.create_default_context()
    if not _has_authorities(context):
        import certifi

        context.load_verify_locations(certifi.where())
    return _http11(context)


def ca_context(path: Path) -> ssl.SSLContext:
    """Verify against one file alone: a CA, or the server's own certificate. ConfigError where it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=str(path))
    except ssl.SSLError:
        raise ConfigError(f"no certificate in PEM form in the CA file {path}") from None
    except OSError as error:
        raise ConfigError(f"the CA file {path} cannot be read: {error.strerror}") from None
    # Private authorities are often plainer than the strict profile wants, and may be an intermediate or the server's own.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return _http11(context)


def insecure_context() -> ssl.SSLContext:
    """Encrypt, and take any certificate: what `--insecure` asks for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _http11(context)


def explain(where: str, error: ssl.SSLError, certificate: str = "") -> str:
    """Say in one line what was wrong with a handshake; ``certificate`` describes the one that was refused."""
    if isinstance(error, ssl.SSLCertVerificationError):
        which = f" ({certificate})" if certificate else ""
        return f"the certificate of {where}{which} is not accepted: {error.verify_message.rstrip('.')}"
    if not speaks_tls(error):
        return f"{where} does not speak TLS"
    reason = (error.reason or "handshake failed").lower().replace("_", " ")
    return f"the TLS handshake with {where} failed: {reason}"


def speaks_tls(error: ssl.SSLError) -> bool:
    """Say whether a failed handshake shows a TLS server all the same: it sent a certificate, or an alert."""
    return isinstance(error, ssl.SSLCertVerificationError) or "ALERT" in (error.reason or "")


def _http11(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    directory = ssl.get_default_verify_paths().capath
    try:
        return directory is not None and any(Path(directory).iterdir())
    except OSError:
        return False
