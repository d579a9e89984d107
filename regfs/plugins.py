"""Providers and auth methods, found by entry points: ours in the same way as a stranger's; then those of ``plugins_dir``.

A plugin is imported only when it is asked for. One that cannot be used is named with its reason, and stops nothing.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from regfs import __version__
from regfs.errors import ConfigError, NoSuchPlugin, PluginError
from regfs.redaction import redact

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from regfs.plugin_folder import Found
    from regfs.ports import AuthMethod, Claim, Field, Provider, RecognisesReplies

Group = Literal["provider", "auth"]

_log: Final = logging.getLogger(__name__)

ENTRY_POINT_GROUPS: Final[Mapping[Group, str]] = {"provider": "regfs.providers", "auth": "regfs.auth"}
"""The entry-point group in which a wheel registers each kind of plugin."""

OURS: Final[Mapping[Group, Mapping[str, str]]] = {
    "provider": {
        "dockerhub": "regfs.providers.dockerhub:DockerHubProvider",
        "generic": "regfs.providers.generic:GenericProvider",
        "gitlab": "regfs.providers.gitlab:GitLabProvider",
        "ghcr": "regfs.providers.ghcr:GhcrProvider",
        "oci": "regfs.providers.oci:OciLayoutProvider",
    },
    "auth": {
        "anonymous": "regfs.auth.methods:Anonymous",
        "basic": "regfs.auth.methods:Basic",
        "challenge": "regfs.auth.methods:Challenge",
        "oauth": "regfs.auth.oauth.method:OAuth",
    },
}
"""What pyproject.toml registers, by name: no package metadata need be read to find our own."""

_OUR_METADATA: Final = re.compile(r"regfs(?:-[0-9][^-]*)?\.(?:dist|egg)-info")

_REQUIRED: Final[Mapping[str, Sequence[str]]] = {
    "provider": ("name", "title", "default_auth", "many", "fields", "claim", "registries"),
    "auth": ("name", "title", "fields", "flow", "credential", "for_docker"),
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin: ``origin`` is its distribution and version, or its file; ``value`` its entry point (``module:Class``).

    ``error`` is empty where it can be used, else the reason in one line. The group "file" is a file of ``plugins_dir``
    of which nothing can be used.
    """

    name: str
    group: Group | Literal["file"]
    origin: str
    value: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a plugin says of itself without a connection.

    ``capabilities`` are those that its Sources may hand out, ``roles`` what it may be beyond its contract
    (``OffersOAuth``): names of the Protocols in `regfs.ports`. ``default_auth`` and ``many`` are a provider's, and so is
    ``lacks``: why it can be used with another auth method alone; empty: its own is there.
    """

    title: str
    capabilities: Sequence[str] = ()
    roles: Sequence[str] = ()
    fields: Sequence[Field] = ()
    default_auth: str = ""
    many: bool = False
    lacks: str = ""


def plugins() -> Sequence[Plugin]:
    """All plugins, ours first, each tried. Of two that bear one name the first is used, and the other says so."""
    return [_examined(plugin, first) for plugin, first in _with_winner([*_registered(), *_broken_files()])]


def abilities(plugin: Plugin) -> Abilities | None:
    """What a plugin can do; None where it cannot be used, or fails when it is asked."""
    if plugin.error:
        return None
    made, reason = _made(plugin)
    try:
        return None if reason else _abilities(cast("Any", made), plugin.group)
    except Exception:  # a stranger's property can raise anything
        _log.warning("%s %r does not say what it can do", plugin.group, plugin.name, exc_info=True)
        return None


def _abilities(made: Any, group: str) -> Abilities:
    from regfs import ports

    roles = (
        (ports.OffersOAuth, ports.BringsCredentials, ports.RecognisesReplies, ports.SpellsPaths)
        if group == "provider"
        else (ports.RefinesKeychain, ports.SignsInWithPerson)
    )
    default_auth = str(getattr(made, "default_auth", ""))
    return Abilities(
        title=str(made.title),
        capabilities=[kind.__name__ for kind in getattr(made, "capabilities", ())],
        roles=[role.__name__ for role in roles if isinstance(made, role)],
        fields=tuple(made.fields),
        default_auth=default_auth,
        many=bool(getattr(made, "many", False)),
        lacks=_lacks(default_auth) if group == "provider" else "",
    )


def _lacks(default_auth: str) -> str:
    try:
        auth_method(default_auth)
    except PluginError as error:
        return f"its own way of signing in (default_auth) cannot be used, so give --auth: {error.message}"
    return ""


def provider(name: str) -> Provider:
    """The provider of that name; imports no other. PluginError: there is none, or it cannot be used."""
    return cast("Provider", _instance("provider", name))


def auth_method(name: str) -> AuthMethod:
    """The auth method of that name; imports no other. PluginError: there is none, or it cannot be used."""
    return cast("AuthMethod", _instance("auth", name))


def claims(address: str) -> tuple[str, Claim]:
    """The provider that is surest that ``address`` is its own, by name, and its claim; ours wins a tie.

    ConfigError: no provider takes the address; the message has the reasons.
    """
    best: tuple[str, Claim] | None = None
    reasons: list[str] = []
    for name in _names("provider"):
        claim = _claim(name, address, reasons)
        if claim is not None and (best is None or claim.confidence > best[1].confidence):
            best = name, claim
    if best is None:
        raise ConfigError("; ".join(reasons) or f"no provider knows the address {redact(address)[:200]!r}")
    return best


def recognisers() -> Sequence[tuple[str, RecognisesReplies]]:
    """The providers that know their kind by how a registry answers, by name."""
    from regfs.ports import RecognisesReplies

    found = []
    for name in _names("provider"):
        try:
            made = provider(name)
        except PluginError as error:
            _log.warning("%s", error)
            continue
        if isinstance(made, RecognisesReplies):
            found.append((name, made))
    return found


def recognised(address: str, status: int, headers: Mapping[str, str]) -> tuple[str, Claim] | None:
    """The provider that is surest by what an unsigned ``GET /v2/`` was answered, and its claim; None: none knows it."""
    best: tuple[str, Claim] | None = None
    for name, made in recognisers():
        try:
            claim = made.recognise(address, status, headers)
        except Exception:  # a stranger's code must not stop the others
            _log.warning("provider %r failed on a reply", name, exc_info=True)
            continue
        if claim is not None and (best is None or claim.confidence > best[1].confidence):
            best = name, claim
    return best


def normalised(address: str, provider_name: str | None = None) -> tuple[str, str]:
    """The provider (the one named, else the surest) and the whole of ``address`` as it spells it, its path included.

    ConfigError: not an address; PluginError: the provider named cannot be used.
    """
    if provider_name is None:
        name, claim = claims(address)
        return name, _whole(claim)
    try:
        named = provider(provider_name).claim(address)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if named is None:
        raise ConfigError(f"not an address of the provider {provider_name!r}")
    return provider_name, _whole(named)


def _whole(claim: Claim) -> str:
    return f"{claim.address}/{claim.rest}" if claim.rest else claim.address


def _claim(name: str, address: str, reasons: list[str]) -> Claim | None:
    try:
        return provider(name).claim(address)
    except ValueError as error:
        reasons.append(str(error))
    except PluginError as error:
        _log.warning("%s", error)
    except Exception:  # a stranger's code must not stop the others
        _log.warning("provider %r failed on an address", name, exc_info=True)
    return None


def _names(group: Group) -> Iterable[str]:
    return dict.fromkeys(plugin.name for plugin in _registered() if plugin.group == group)


def _instance(group: Group, name: str) -> object:
    ours = OURS[group].get(name)
    plugin = Plugin(name, group, _origin_of_ours(), ours) if ours else _strangers_plugin(group, name)
    made, reason = _made(plugin)
    if reason:
        raise PluginError(f"{_title(group)} {name!r} ({plugin.origin}) cannot be used: {reason}")
    return made


def _strangers_plugin(group: Group, name: str) -> Plugin:
    for found in (_strangers, _in_folder):
        for plugin in found():
            if (plugin.group, plugin.name) == (group, name):
                return plugin
    known = ", ".join(sorted(_names(group)))
    unread = "".join(f"; {plugin.origin} cannot be used: {plugin.error}" for plugin in _broken_files())
    raise NoSuchPlugin(f"there is no {_title(group)} {name[:80]!r}; known: {known}{unread}")


def _title(group: Group) -> str:
    return "provider" if group == "provider" else "auth method"


@cache
def _made(plugin: Plugin) -> tuple[object, str]:
    """The plugin's object, or the reason why it cannot be used. Cached: one object serves all connections."""
    from importlib import import_module

    module, _, attribute = plugin.value.partition(":")
    try:
        made = getattr(import_module(module.strip()), attribute.partition("[")[0].strip())()
        missing = [name for name in _REQUIRED[plugin.group] if not hasattr(made, name)]
    except (Exception, SystemExit) as error:  # importing a stranger's code can raise anything
        return None, f"{type(error).__name__}: {str(error)[:200]}".splitlines()[0]
    if missing:
        return None, f"{plugin.value} lacks {', '.join(missing)}"
    if made.name != plugin.name:
        return None, f"{plugin.value} calls itself {made.name!r}, its entry point {plugin.name!r}"
    return made, ""


def _examined(plugin: Plugin, first: Plugin) -> Plugin:
    if plugin.group == "file":
        return plugin
    if plugin is not first:
        return replace(plugin, error=f"not used: {plugin.name!r} is already {first.origin}'s")
    return replace(plugin, error=_made(plugin)[1])


def _with_winner(found: Iterable[Plugin]) -> Iterable[tuple[Plugin, Plugin]]:
    first: dict[tuple[str, str], Plugin] = {}
    for plugin in found:
        yield plugin, first.setdefault((plugin.group, plugin.name), plugin)


def _registered() -> Sequence[Plugin]:
    ours = [
        Plugin(name, group, _origin_of_ours(), value)
        for group, table in OURS.items()
        for name, value in table.items()
    ]
    return [*ours, *_strangers(), *_in_folder()]


def _origin_of_ours() -> str:
    return f"regfs {__version__}"


def _in_folder() -> Sequence[Plugin]:
    """The plugins that are files in ``plugins_dir``."""
    return [
        Plugin(found.name, found.shape, str(found.file), found.value)
        for found in _files()
        if found.shape is not None
    ]


def _broken_files() -> Sequence[Plugin]:
    """The files in ``plugins_dir`` of which nothing can be used, each with its reason."""
    return [
        Plugin(found.name, "file", str(found.file), "", found.error)
        for found in _files()
        if found.shape is None
    ]


@cache
def _files() -> Sequence[Found]:
    from regfs.config import plugins_folder

    folder = plugins_folder()
    if folder is None:
        return ()
    from regfs.plugin_folder import found_in

    return found_in(folder)


@cache
def _strangers() -> Sequence[Plugin]:
    """The plugins of other distributions, in the order of sys.path."""
    if not _any_strangers(sys.path):
        return ()
    from importlib.metadata import entry_points

    return [
        _plugin(group, point)
        for group, name in ENTRY_POINT_GROUPS.items()
        for point in entry_points(group=name)
        if OURS[group].get(point.name) != point.value
    ]


def _plugin(group: Group, point: EntryPoint) -> Plugin:
    origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"
    return Plugin(point.name, group, origin, point.value)


def _any_strangers(path: Iterable[str]) -> bool:
    """Whether a distribution other than ours may register plugins: says yes where it cannot tell.

    importlib.metadata costs a start 20 ms and more, so it is imported only where it has something to find.
    """
    return any(map(_may_hold_plugins, path))


def _may_hold_plugins(folder: str) -> bool:
    try:
        with os.scandir(folder or ".") as entries:
            infos = [e for e in entries if e.name.endswith((".dist-info", ".egg-info", ".egg"))]
    except NotADirectoryError:
        return True  # a zip file, which importlib.metadata can look into
    except OSError:
        return False
    return any(map(_registers_plugins, infos))


def _registers_plugins(info: os.DirEntry[str]) -> bool:
    if info.name.endswith(".egg"):
        return True
    if _OUR_METADATA.fullmatch(info.name):
        return False
    try:
        text = (Path(info.path) / "entry_points.txt").read_bytes()
    except OSError:
        return False
    return any(name.encode() in text for name in ENTRY_POINT_GROUPS.values())
