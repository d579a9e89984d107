"""``-o`` as mount(8) spells it: ``rw,ttl=30,allow_other,ca=/etc/ssl/own.pem``."""

from __future__ import annotations

import difflib
import grp
import pwd
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from regfs import config_values as values
from regfs.errors import ConfigError
from regfs.reference import is_connection_name

_IGNORED: Final = re.compile(
    r"defaults|(?:no)?auto|(?:no)?users?|owner|group|_netdev|nofail|nosuid|nodev|(?:no)?exec|(?:a)?sync|dirsync|silent|loud"
    r"|(?:no|rel|nodir|dir|strict|norel|nostrict|lazy|nolazy)a?time|(?:no)?mand|(?:no)?iversion|default_permissions"
    r"|x-.*|comment|(?:fs|def|root)?context"
)
"""What /etc/fstab and mount(8) hand to every filesystem. None of it changes what regfs does: mounts are always
nosuid and nodev, and nothing in a registry is written by the kernel's own clock."""

_REFUSED: Final = {"suid": "set-user-ID programs", "dev": "device files"}
_SPLIT: Final = re.compile(r"(?<!\\),")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` said: ``settings`` as `load_settings` takes them, ``connection`` the fields of the one registry."""

    settings: Mapping[str, object] = field(default_factory=dict)
    connection: Mapping[str, object] = field(default_factory=dict)


def parse_options(given: Iterable[str], *, by_mount: bool = False) -> MountOptions:
    """Read the values of ``-o``, each a list with commas; later ones win, lists grow.

    ``by_mount``: mount(8) wrote them. It says ``rw``, ``suid`` and ``dev`` of itself where nobody said otherwise, so these
    then mean nothing, and writing is allowed by ``writable``. ConfigError names each option that cannot be used.
    """
    reader = _Reader(by_mount)
    for option in _options(given):
        reader.take(*option)
    if reader.mistakes:
        raise ConfigError("\n".join(reader.mistakes))
    return MountOptions(reader.settings, reader.connection)


def _options(given: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    for text in given:
        for part in _SPLIT.split(text):
            name, equals, value = part.replace("\\,", ",").strip().partition("=")
            if name:
                yield name, value if equals else None


class _Reader:
    def __init__(self, by_mount: bool) -> None:
        self._by_mount = by_mount
        self.settings: dict[str, object] = {}
        self.connection: dict[str, object] = {}
        self.mistakes: list[str] = []

    def take(self, name: str, value: str | None) -> None:
        try:
            self._take(name, value)
        except ValueError as error:
            self.mistakes.append(f"-o {name}: {error}")

    def _take(self, name: str, value: str | None) -> None:
        if name in _REFUSED:
            if not self._by_mount:
                raise ValueError(f"refused: an image must not bring {_REFUSED[name]} into your system")
        elif name in _SWITCHES:
            self._switch(name, value)
        elif name in _SETTINGS:
            self.settings[name] = _SETTINGS[name](_needed(value))
        elif name in _CONNECTION:
            self.connection[name] = _CONNECTION[name](_needed(value))
        elif name in _LISTS:
            known = self.connection.get(name, ())
            assert isinstance(known, tuple)
            parting = "," if name == "allow_hosts" else "[:,]"  # a host may have a port
            self.connection[name] = (*known, *map(_LISTS[name], re.split(parting, _needed(value))))
        elif not _IGNORED.fullmatch(name):
            raise ValueError(_unknown(name))

    def _switch(self, name: str, value: str | None) -> None:
        if value is not None:
            raise ValueError("takes no value")
        if name == "rw" and self._by_mount:
            return
        place, key, switched = _SWITCHES[name]
        (self.settings if place == "settings" else self.connection)[key] = switched


def _needed(value: str | None) -> str:
    if not value:
        raise ValueError("needs a value, as in NAME=VALUE")
    return value


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, OPTIONS, n=1)
    return (
        f"there is no such option; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(OPTIONS)}"
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number of seconds") from None


def _integer(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _user(text: str) -> int:
    try:
        return _integer(text) if text.isdigit() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError("there is no such user here") from None


def _group(text: str) -> int:
    try:
        return _integer(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError("there is no such group here") from None


def _path(text: str) -> Path:
    return Path(values.path(text if text.startswith(("/", "~")) else str(Path.cwd() / text)))


def _name(text: str) -> str:
    if not is_connection_name(text):
        raise ValueError("must be a plain word: it names a folder")
    return text


_SWITCHES: Final[Mapping[str, tuple[str, str, bool]]] = {
    "ro": ("settings", "rw", False),
    "rw": ("settings", "rw", True),
    "writable": ("settings", "rw", True),
    "allow_other": ("settings", "allow_other", True),
    "allow_other_write": ("settings", "allow_other_write", True),
    "show_fallback_tags": ("settings", "show_fallback_tags", True),
    "insecure": ("connection", "insecure", True),
}
_SETTINGS: Final[Mapping[str, Callable[[str], object]]] = {
    "ttl": _number,
    "uid": _user,
    "gid": _group,
    "umask": values.umask,
    "credentials": _path,
    "log_file": _path,
    "verbose": _integer,
    "call_deadline": _number,
    "retries": _integer,
    "max_requests": _integer,
    "owners": values.choice("image", "squash"),
    "symlinks": values.choice("clamped", "raw"),
}
_CONNECTION: Final[Mapping[str, Callable[[str], object]]] = {
    "ca": _path,
    "client_cert": _path,
    "client_key": _path,
    "username": values.text,
    "name": _name,
    "provider": values.word,
    "auth": values.word,
    "tag_delete": values.choice("auto", "native"),
}
_LISTS: Final[Mapping[str, Callable[[str], Any]]] = {
    "namespaces": values.namespace,
    "only": values.pattern,
    "allow_hosts": values.host,
}
OPTIONS: Final[Sequence[str]] = (*_SWITCHES, *_SETTINGS, *_CONNECTION, *_LISTS)
"""All options with a meaning, as the help lists them."""
