"""``regfs mount`` and ``regfs umount``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regfs.cli.edge import say
from regfs.errors import ConfigError, MountError

if TYPE_CHECKING:
    from regfs.config import Settings
    from regfs.connection import Connection
    from regfs.daemon import Daemon

_WRITING = click.option("--rw/--ro", default=None, help="Allow deleting tags (default: read-only).")


@click.command()
@click.argument("places", metavar="[REGISTRY] DIR", nargs=-1)
@_WRITING
@click.option(
    "-o", "options", metavar="OPT[,OPT…]", multiple=True, help="Options as mount(8) spells them; see below."
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("--ttl", type=float, metavar="SECONDS", help="How old a listing may be (default: 10).")
@click.option("--allow-other", is_flag=True, default=None, help="Let other users of this machine in.")
@click.option("--allow-other-write", is_flag=True, default=None, help="Let them delete too, in your name.")
@click.option("--uid", metavar="USER", help="Whom files belong to (default: you).")
@click.option("--gid", metavar="GROUP", help="Which group files belong to (default: yours).")
@click.option("--umask", metavar="OCTAL", help="Permissions to take away.")
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Log there, not to the system log."
)
@click.option("-v", "--verbose", count=True, help="Log more; twice: details.")
@click.pass_context
def mount(
    ctx: click.Context,
    /,
    places: tuple[str, ...],
    options: Sequence[str],
    foreground: bool,
    rw: bool | None,
    verbose: int,
    **given: object,
) -> None:
    """Mount REGISTRY on DIR; without REGISTRY, a folder for each of your connections.

    Returns when the mount is usable; a registry that is down, or wants a sign-in, is said and is no failure. DIR is
    made if it is not there. `regfs umount DIR` ends it.

    \b
    -o takes, beside what the long options say (rw, ro, ttl=, allow_other, uid=, gid=, umask=, log_file=):
      credentials=FILE     user name and password for this mount
      insecure, ca=FILE    plain http or an unverified certificate; an own authority
      name=WORD            what the registry is called
      username=USER        whose account, where there are several
      client_cert=FILE, client_key=FILE   what is shown to the registry
      namespaces=A:B       folders to show where the registry refuses to list
      only=team/*          show nothing else
      allow_hosts=HOST     let HOST answer in the registry's place (once for each)
      show_fallback_tags   list the tags under which clients keep what refers to images
      owners=image|squash  whom files in images belong to: whom the image says (root's default), or who mounts
      symlinks=raw         links in images as they are, wherever they lead
      call_deadline=, retries=, max_requests=, provider=, auth=, tag_delete=

    In /etc/fstab (`localhost:5000 /mnt/registry fuse.regfs ro,_netdev,nosuid,nodev 0 0`) mount(8) says `rw` of itself, so
    writing is allowed by `writable` there.
    """
    if len(places) not in (1, 2):
        raise click.UsageError("name a folder to mount on: `regfs mount [REGISTRY] DIR`")
    wanted = _Wanted(
        registry=places[0] if len(places) == 2 else None,
        directory=Path(places[-1]),
        options=[*_as_options(given), *options, *([] if rw is None else ["writable" if rw else "ro"])],
        verbose=max(verbose, ctx.obj or 0),
        by_mount=ctx.info_name == HELPER,
    )
    if foreground:
        _mount(wanted, None)
        return
    from regfs.daemon import forked

    with forked() as daemon:
        _mount(wanted, daemon)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The command line. ``options``: all that it says, as ``-o`` spells it, so that one set of rules reads it."""

    registry: str | None
    directory: Path
    options: Sequence[str]
    verbose: int
    by_mount: bool


def _mount(wanted: _Wanted, daemon: Daemon | None) -> None:
    from regfs.mount import mount as mount_it
    from regfs.mount_options import parse_options

    spelled = parse_options(wanted.options, by_mount=wanted.by_mount)
    overrides = dict(spelled.settings)
    if wanted.verbose:
        overrides["verbose"] = wanted.verbose
    settings, connections = _connections(wanted.registry, overrides, spelled.connection)
    mount_it(
        settings,
        connections,
        single=wanted.registry is not None,
        directory=wanted.directory,
        daemon=daemon,
        say=lambda text: say(f"regfs: {text}"),
    )


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(readable=False, path_type=Path))
@click.option(
    "-l",
    "--lazy",
    is_flag=True,
    help="Also while it is in use: it goes from the tree now, and ends with its last user.",
)
def umount(directory: Path, lazy: bool) -> None:
    """Unmount DIR, also one whose daemon has died."""
    from regfs.mountpoint import umount as umount_it

    umount_it(directory, lazy=lazy)


HELPER = "mount.regfs"
"""What the command calls itself when mount(8) runs it."""


def helper_arguments(arguments: Sequence[str]) -> list[str] | None:
    """The arguments of `mount` for ``regfs SOURCE DIR -o OPTIONS``, as mount.fuse3(8) writes them; None for all else."""
    if len(arguments) >= 2 and arguments[1].startswith("/") and not arguments[0].startswith("-"):
        rest = [word for word in arguments[2:] if word not in ("-n", "-s", "-w")]
        return [arguments[0], arguments[1], *rest]
    return None


def _as_options(given: Mapping[str, object]) -> list[str]:
    """Long options as ``-o`` spells them, so that both are read by the same rules."""
    spelled = []
    for name, value in given.items():
        if value is True:
            spelled.append(name)
        elif value is not None and value is not False:  # 0 is a value, and equals False
            spelled.append(f"{name}={value}".replace(",", "\\,"))
    return spelled


def _connections(
    registry: str | None, overrides: Mapping[str, object], changes: Mapping[str, object]
) -> tuple[Settings, tuple[Connection, ...]]:
    from regfs.cli.session import load

    settings, known = load(overrides)
    if registry is not None:
        return settings, (_the_one(registry, known, changes),)
    if changes:
        raise ConfigError(
            f"-o {', '.join(changes)}: of one registry only; name it: `regfs mount REGISTRY DIR`"
        )
    return settings, known


def _the_one(registry: str, known: tuple[Connection, ...], changes: Mapping[str, object]) -> Connection:
    """The connection that the user means: one that is known by that name or address, else the address itself."""
    from regfs import plugins
    from regfs.cli.session import ad_hoc, under_other_name
    from regfs.connections import find_connection

    username = _text(changes.get("username")) or ""
    found = find_connection(registry, known, username)
    if found is None:
        provider, address = plugins.normalised(registry, _text(changes.get("provider")))
        found = under_other_name(provider, address, known)
    if found is not None:
        connection, path = found
        if path:
            raise MountError(
                f"{registry} is a path in {connection.address}; mount that, and find it in the folder {path}, "
                f"or show nothing else with `-o only={path}:{path}/**`"
            )
    else:
        connection = ad_hoc(address, provider)
    if username not in ("", connection.username):
        connection = replace(connection, account="")  # another user's sign-in
    return replace(connection, **changes)  # type: ignore[arg-type]  # each was read by its own rule


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
