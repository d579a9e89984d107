"""A prompter for gnome-keyring that takes every prompt and never answers: a dialogue that nobody sees."""

from __future__ import annotations

from contextlib import suppress

from jeepney import DBusAddress, new_method_call  # type: ignore[import-untyped]
from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]

BUS = DBusAddress("/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus")


def main() -> None:
    """Own the prompter's name until the session ends."""
    connection = open_dbus_connection(bus="SESSION")
    request = new_method_call(BUS, "RequestName", "su", ("org.gnome.keyring.SystemPrompter", 0))
    connection.send_and_get_reply(request)
    with suppress(OSError, EOFError):
        while True:
            connection.receive()


if __name__ == "__main__":
    main()
