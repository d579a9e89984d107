"""The person at the terminal during a sign-in that is a conversation: what to open is shown as text and as a QR code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

import click

from regfs.cli.edge import printable
from regfs.connection import Connection
from regfs.ports import Credential

_QUIET_ZONE: Final = 2


class Terminal:
    """A `Person` on standard error. Nothing is redacted: a page to open is for exactly these eyes, and no secret."""

    def tell(self, text: str) -> None:
        """Show a line."""
        click.echo(printable(text), err=True)

    def show_link(self, url: str, code: str = "") -> None:
        """Show a URL; with a ``code``, which another device may type, as a QR code too. A browser at hand is opened."""
        self.tell(f"Open this page: {url}")
        if code:
            self.tell(f"and check or type this code: {code}")
        if not sys.stderr.isatty():
            return
        if code:
            self._show_qr(url)
        elif _has_browser():
            _open_browser(url)

    def _show_qr(self, url: str) -> None:
        import segno

        qr = segno.make(printable(url), error="l", micro=False)
        if qr.symbol_size(border=_QUIET_ZONE)[0] <= _width():
            qr.terminal(sys.stderr, border=_QUIET_ZONE, compact=True)


def sign_in(connection: Connection, answers: Mapping[str, str]) -> Credential | None:
    """Sign in by a conversation, where the connection's auth method is one; None: it is a form.

    Raises NotSignedIn, CredentialError, and what an `Exchange` raises.
    """
    import trio

    from regfs import plugins
    from regfs.cli.sources import CHECK_POLICY
    from regfs.ports import OffersOAuth, SignsInWithPerson
    from regfs.registry.exchange import HttpExchange

    method = plugins.auth_method(connection.auth)
    if not isinstance(method, SignsInWithPerson):
        return None
    provider = plugins.provider(connection.provider)
    server = provider.oauth(connection) if isinstance(provider, OffersOAuth) else None
    exchange = HttpExchange(connection, CHECK_POLICY)
    return trio.run(method.sign_in, connection, answers, server, exchange, Terminal())


def _open_browser(url: str) -> None:
    """Beside the sign-in: some browsers are waited for until they end, and must find us listening."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80


def _has_browser() -> bool:
    """Whether opening one can work: a text browser would take the terminal."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
