"""Checks for the values of settings. Each takes what TOML or the command line gave, and returns it typed.

ValueError has the reason, and never the value: it may be a secret that was put on the wrong line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from regfs.reference import Address, is_repository

Check = Callable[[object], Any]

_TYPE_NAMES: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_SECRET: Final = re.compile(
    r"(?:^|_|-)(?:pass(?:word|wd|phrase)?|secret|token|api_?key|auth_?key|credential)$"
)
_PATTERN: Final = re.compile(r"[a-z0-9._/*?\[\]!-]+")


def names_a_secret(key: str) -> bool:
    """Say whether a setting so called would hold a secret: ``password``, ``identity_token``, ``client_secret``."""
    return _SECRET.search(re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower()) is not None


def boolean(value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def integer(low: int, high: int) -> Check:
    """An integer from ``low`` to ``high``."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong("an integer", value)
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """A number of seconds from ``low`` to ``high``."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong("a number of seconds", value)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"must be from {low:g} to {high:g} seconds")
        return float(value)

    return check


def size(value: object) -> int:
    """A number of bytes: ``10737418240``, ``"10GiB"``, ``"500M"``. All units are powers of 1024, as du(1) has them."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _wrong("a size, such as 10GiB", value)
    match = re.fullmatch(r"(\d{1,18})(?:\.(\d{1,3}))? ?([KMGT]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    if match is None or (match[2] and not match[3]):
        raise ValueError('must be a size, such as "10GiB", "500M" or a number of bytes')
    unit = 1024 ** ("KMGT".index(match[3].upper()) + 1) if match[3] else 1
    return int(float(f"{match[1]}.{match[2]}") * unit) if match[2] else int(match[1]) * unit


def umask(value: object) -> int:
    """Permission bits: ``0o022``, or ``"022"`` as umask(1) spells it."""
    if isinstance(value, str) and re.fullmatch(r"(?:0o)?[0-7]{1,4}", value):
        value = int(value, 8)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise ValueError('must be permission bits in octal, such as 0o022 or "022"')
    return value


def path(value: object) -> Path:
    """An absolute path, or one that starts with ``~``: the daemon works in another folder than the shell."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise _wrong("a path", value)
    try:
        expanded = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError("names a user without a home folder") from error
    if "\0" in value or not expanded.is_absolute():
        raise ValueError("must be an absolute path, or one that starts with ~/")
    return expanded


def text(value: object) -> str:
    """A line of text."""
    if not isinstance(value, str):
        raise _wrong("a string", value)
    if not value.isprintable():
        raise ValueError("must be one line of plain text")
    return value


def word(value: object) -> str:
    """A plugin's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text(value)):
        raise ValueError("must be one word, as `regfs plugins` lists them")
    return str(value)


def address(value: object) -> str:
    """A registry's address, which the provider reads further; user names and passwords are no part of one."""
    stripped = text(value).strip()
    if not stripped:
        raise ValueError("is empty")
    authority = stripped.rpartition("://")[2].partition("/")[0]
    if "@" in authority:
        host = authority.rpartition("@")[2]
        raise ValueError(
            "an address holds no user name or password: remove all before the '@', and run "
            f"`regfs login --username USER {host}`"
        )
    return stripped


def namespace(value: object) -> str:
    """A repository's name, or the beginning of one in whole components."""
    name = text(value).strip("/")
    if not is_repository(name):
        raise ValueError("must be a repository's name or the beginning of one, such as library or team/app")
    return name


def pattern(value: object) -> str:
    """A glob of repository names."""
    if not _PATTERN.fullmatch(text(value)):
        raise ValueError("must be a pattern of repository names, such as team/* (lower-case, no blanks)")
    return str(value).strip("/")


def host(value: object) -> str:
    """``host`` or ``host:port``, or ``*.example.com`` for all hosts below that."""
    below = text(value).removeprefix("*.")
    found = Address.parse(below)
    if below != value and (found.port is not None or "." not in found.host):
        raise ValueError("a pattern is *. before the name of a domain, such as *.example.com, without a port")
    if found.prefix or found.scheme:
        raise ValueError("must be host or host:port, without https:// and without a path")
    return found.authority if below == value else f"*.{found.host}"


def choice(*names: str) -> Check:
    """One of ``names``."""

    def check(value: object) -> str:
        if value not in names:
            raise ValueError(f"must be {' or '.join(map(repr, names))}")
        return str(value)

    return check


def each(check: Check) -> Check:
    """An array whose members pass ``check``."""

    def check_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _wrong("an array of strings", value)
        return tuple(_member(check, f"member {n}", member) for n, member in enumerate(value, 1))

    return check_all


def options(value: object) -> tuple[tuple[str, str], ...]:
    """A provider's own settings: a table of strings, without secrets."""
    if not isinstance(value, dict):
        raise _wrong("a table of strings", value)
    for key in filter(names_a_secret, value):
        raise ValueError(f"{key}: a secret does not belong in a file: run `regfs login REGISTRY`")
    return tuple(sorted((key, _member(text, key, member)) for key, member in value.items()))


def limits(most: Mapping[str, int]) -> Check:
    """A table of whole numbers from 1 on; ``most`` has the names, each with the largest number that makes sense."""

    def check(value: object) -> tuple[tuple[str, int], ...]:
        if not isinstance(value, dict):
            raise _wrong("a table of whole numbers", value)
        unknown = next((key for key in value if key not in most), None)
        if unknown is not None:
            raise ValueError(f"{unknown}: there is no such limit; known: {', '.join(most)}")
        return tuple(
            sorted((key, _member(integer(1, most[key]), key, number)) for key, number in value.items())
        )

    return check


def _member(check: Check, what: str, member: object) -> Any:
    try:
        return check(member)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error


def _wrong(wanted: str, value: object) -> ValueError:
    kind = next((name for known, name in _TYPE_NAMES.items() if type(value) is known), "something else")
    return ValueError(f"must be {wanted}, is {kind}")


REGISTRY: Final[Mapping[str, Check]] = {
    "address": address,
    "provider": word,
    "auth": word,
    "username": text,
    "insecure": boolean,
    "ca": path,
    "client_cert": path,
    "client_key": path,
    "namespaces": each(namespace),
    "only": each(pattern),
    "allow_hosts": each(host),
    "tag_delete": choice("auto", "native"),
    "options": options,
}
"""What can be said of one registry: in a `[registry.NAME]` of the configuration, and in the store of `regfs login`."""
