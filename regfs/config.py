"""Settings: ``$XDG_CONFIG_HOME/regfs/config.toml`` over ``/etc/regfs/config.toml``, the command line over both.

Every mistake is named with file, line and key, all of them at once. No secret belongs in a config file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from regfs import config_values as values
from regfs.connection import Connection
from regfs.errors import ConfigError, PluginError
from regfs.reference import connection_name, is_connection_name
from regfs.toml_lines import KeyPath, TomlLines

SYSTEM_CONFIG: Final = Path("/etc/regfs/config.toml")
MAX_CONFIG: Final = 1024 * 1024
"""The largest config file read, in bytes."""

COMMAND_LINE: Final = "the command line"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the config files and the command line say. Times in seconds; None: not set.

    ``umask`` takes permissions away from what files and folders show. ``verbose`` is 0, 1 (info) or 2 (debug).
    ``cache_size`` is in bytes. ``owners``: ``image`` or ``squash``; None: ``image`` where root mounts. ``symlinks``: ``clamped``
    or ``raw``. ``image_limits``: numbers for fields of `Limits` and `ArchiveLimits`.
    """

    ttl: float = 10.0
    rw: bool = False
    allow_other: bool = False
    allow_other_write: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    log_file: Path | None = None
    verbose: int = 0
    credentials: Path | None = None
    plugins_dir: Path | None = None
    call_deadline: float = 30.0
    retries: int = 4
    max_requests: int = 16
    show_fallback_tags: bool = False
    owners: str | None = None
    symlinks: str = "clamped"
    image_limits: tuple[tuple[str, int], ...] = ()
    cache_dir: Path | None = None
    cache_size: int = 10 * 2**30
    registries: tuple[Connection, ...] = ()

    @property
    def image_owners(self) -> bool:
        """Whether the files of an image show the owners and modes that the image gives them."""
        return os.geteuid() == 0 if self.owners is None else self.owners == "image"

    @property
    def cache_folder(self) -> Path:
        """Where content is kept: ``cache_dir``, else in the user's folder for caches."""
        return self.cache_dir or cache_home()


def _image_limits(value: object) -> Any:
    """A table of bounds on images, each with the largest that it may be set to."""
    from regfs.image.archive_limits import ArchiveLimits
    from regfs.image.limits import Limits

    # A longer name can't be shown, and zstd knows no larger window.
    largest = {limit.name: 2**63 - 1 for limit in (*fields(Limits), *fields(ArchiveLimits))}
    return values.limits(largest | {"path": 4095, "name": 255, "window_log": 31})(value)


_TOP: Final[Mapping[str, values.Check]] = {
    "ttl": values.number(0, 86_400),
    "rw": values.boolean,
    "allow_other": values.boolean,
    "allow_other_write": values.boolean,
    "uid": values.integer(0, 2**32 - 2),
    "gid": values.integer(0, 2**32 - 2),
    "umask": values.umask,
    "log_file": values.path,
    "verbose": values.integer(0, 9),
    "credentials": values.path,
    "plugins_dir": values.path,
    "call_deadline": values.number(1, 3600),
    "retries": values.integer(0, 20),
    "max_requests": values.integer(1, 256),
    "show_fallback_tags": values.boolean,
    "owners": values.choice("image", "squash"),
    "symlinks": values.choice("clamped", "raw"),
    "image_limits": _image_limits,
    "cache_dir": values.path,
    "cache_size": values.size,
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: ``place`` is a file or the command line, ``line`` counts from 1."""

    place: str
    line: int | None
    key: str
    reason: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        key = f": {self.key}" if self.key else ""
        return f"{self.place}{line}{key}: {self.reason}"


def config_home() -> Path:
    """``$XDG_CONFIG_HOME/regfs``; a relative one is ignored, as the base directory specification says."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "regfs"


def cache_home() -> Path:
    """``$XDG_CACHE_HOME/regfs``; a relative one is ignored, as for `config_home`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "regfs"


def config_files() -> tuple[Path, Path]:
    """Where config files are read from, the weaker first. Neither need exist."""
    return SYSTEM_CONFIG, config_home() / "config.toml"


def load_settings(
    overrides: Mapping[str, object] | None = None, files: Sequence[Path] | None = None
) -> Settings:
    """Read the config files (a later one wins), then the command line's ``overrides``, of which None says nothing.

    A registry's table is taken whole from the file that wins. ConfigError names all mistakes, a line each.
    """
    loader = _Loader()
    for file in config_files() if files is None else files:
        loader.read(file)
    loader.override(overrides or {})
    if loader.mistakes:
        in_file = any(mistake.place != COMMAND_LINE for mistake in loader.mistakes)
        raise ConfigError("\n".join(map(str, loader.mistakes)), in_file=in_file)
    return Settings(**loader.settings, registries=tuple(loader.registries.values()))


def plugins_folder(files: Sequence[Path] | None = None) -> Path | None:
    """The folder of one-file plugins that the config files name, whatever else is wrong with them; None: there is none.

    It is needed before the settings are: an address in them is read by the provider whose it is.
    """
    loader = _Loader()
    for file in config_files() if files is None else files:
        loader.read_top(file)
    folder: Path | None = loader.settings.get("plugins_dir")
    return folder


def check_config(files: Sequence[Path] | None = None) -> list[str]:
    """All mistakes in the config files, a line each; also plugins that a registry names and that cannot be used."""
    loader = _Loader()
    for file in config_files() if files is None else files:
        loader.read(file)
    return [str(mistake) for mistake in [*loader.mistakes, *loader.plugin_mistakes()]]


def configured_places(files: Sequence[Path] | None = None) -> Mapping[str, str]:
    """Where each registry of the config files is written, by name: ``FILE:LINE``."""
    loader = _Loader()
    for file in config_files() if files is None else files:
        loader.read(file)
    return loader.written


class _Loader:
    """Gathers settings, registries and mistakes from one file after the other."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.registries: dict[str, Connection] = {}
        self.mistakes: list[Mistake] = []
        self._places: dict[str, Mistake] = {}

    def read(self, file: Path) -> None:
        """Take a file's settings over those so far. A file that is not there says nothing."""
        found = self.read_top(file)
        if found is None:
            return
        reader, document = found
        self.registries.update(reader.registries(document))
        self.mistakes += sorted(reader.mistakes, key=lambda mistake: mistake.line or 0)
        self._places.update(reader.places)

    def read_top(self, file: Path) -> tuple[_FileReader, dict[str, object]] | None:
        """As `read`, of the settings that are no registry's alone; what is left to be read, or None."""
        try:
            text = _text(file)
            document = tomllib.loads(text)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.mistakes.append(_unreadable(file, error))
            return None
        reader = _FileReader(file, TomlLines(text))
        self.settings.update(reader.settings(document))
        return reader, document

    def override(self, overrides: Mapping[str, object]) -> None:
        """Take what the command line says."""
        for key, value in overrides.items():
            if value is None:
                continue
            try:
                self.settings[key] = _check_for(key, _TOP)(value)
            except ValueError as error:
                self.mistakes.append(Mistake(COMMAND_LINE, None, key, str(error)))

    @property
    def written(self) -> Mapping[str, str]:
        """Where each registry is written: ``FILE:LINE``."""
        return {name: f"{at.place}:{at.line}" if at.line else at.place for name, at in self._places.items()}

    def plugin_mistakes(self) -> Iterator[Mistake]:
        """Providers and auth methods that registries name and that cannot be used: imports them."""
        from regfs import plugins

        for name, connection in self.registries.items():
            for key, load in (("provider", plugins.provider), ("auth", plugins.auth_method)):
                try:
                    load(getattr(connection, key))
                except PluginError as error:
                    place = self._places[name]
                    yield replace(place, key=f"{place.key}.{key}", reason=str(error))


class _FileReader:
    """Reads one parsed file, and keeps what is wrong with it."""

    def __init__(self, file: Path, lines: TomlLines) -> None:
        self._file = file
        self._lines = lines
        self.mistakes: list[Mistake] = []
        self.places: dict[str, Mistake] = {}

    def settings(self, document: Mapping[str, object]) -> dict[str, Any]:
        return self._checked({k: v for k, v in document.items() if k != "registries"}, _TOP, ())

    def registries(self, document: Mapping[str, object]) -> dict[str, Connection]:
        tables = document.get("registries", {})
        if not isinstance(tables, dict):
            self._mistake(("registries",), "must hold a table for each registry: [registries.NAME]")
            return {}
        read = ((name, self._registry(name, table)) for name, table in tables.items())
        return {name: connection for name, connection in read if connection is not None}

    def _registry(self, name: str, table: object) -> Connection | None:
        path: KeyPath = ("registries", name)
        before = len(self.mistakes)
        if not is_connection_name(name):
            self._mistake(path, f"not a name for a folder; {connection_name(name)!r} would be one")
        if not isinstance(table, dict):
            self._mistake(path, f"must be a table: [registries.{name}]")
            return None
        checked = self._checked(table, values.REGISTRY, path)
        if "address" not in table:
            self._mistake(path, 'has no address, such as address = "registry.example.com"')
        elif "address" in checked:
            checked = self._claimed(checked, path)
        if "client_key" in table and "client_cert" not in table:
            self._mistake((*path, "client_key"), "is the key of a certificate: client_cert has to name that")
        self.places[name] = self._place(path)
        return Connection(name=name, **checked) if len(self.mistakes) == before else None

    def _claimed(self, table: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """The provider spells the address. One that cannot be used stops nothing: its folder says so."""
        from regfs import plugins

        try:
            provider, address = plugins.normalised(table["address"], table.get("provider"))
            return (
                {"auth": plugins.provider(provider).default_auth}
                | table
                | {
                    "provider": provider,
                    "address": address,
                }
            )
        except PluginError:
            return table
        except ConfigError as error:
            self._mistake((*path, "address"), str(error))
            return table

    def _checked(
        self, table: Mapping[str, object], checks: Mapping[str, values.Check], path: KeyPath
    ) -> dict[str, Any]:
        checked = {}
        for key, value in table.items():
            try:
                checked[key] = _check_for(key, checks)(value)
            except ValueError as error:
                self._mistake((*path, key), str(error))
        return checked

    def _mistake(self, path: KeyPath, reason: str) -> None:
        self.mistakes.append(replace(self._place(path), reason=reason))

    def _place(self, path: KeyPath) -> Mistake:
        return Mistake(str(self._file), self._lines.line(path), ".".join(map(_spelled, path)), "")


def _check_for(key: str, checks: Mapping[str, values.Check]) -> values.Check:
    check = checks.get(key)
    if check is not None:
        return check
    if values.names_a_secret(key):
        raise ValueError(
            "a secret does not belong in a file: run `regfs login REGISTRY` and remove this line"
        )
    from difflib import get_close_matches

    near = get_close_matches(key, checks, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(checks)}"
    raise ValueError(f"there is no such setting; {hint}")


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        raw = stream.read(MAX_CONFIG + 1)
    if len(raw) > MAX_CONFIG:
        raise ValueError(f"is over the limit of {MAX_CONFIG} bytes")
    return raw.decode().replace("\r\n", "\n")


def _unreadable(file: Path, error: Exception) -> Mistake:
    if isinstance(error, OSError):
        return Mistake(str(file), None, "", f"cannot be read: {error.strerror}")
    if isinstance(error, RecursionError):
        return Mistake(str(file), None, "", "is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Mistake(str(file), None, "", f"is not UTF-8 text (at byte {error.start})")
    reason, _, at = str(error).partition(" (at ")
    line = re.match(r"line (\d+)", at)
    return Mistake(str(file), int(line[1]) if line else None, "", reason)


def _spelled(key: str | int) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else repr(text[:80])
