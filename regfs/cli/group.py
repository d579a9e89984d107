"""The ``regfs`` command itself: a table of commands, each imported only when it is needed.

A help text or a completion of command names imports no command, so both are as fast as starting Python and click.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from regfs import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "mount": ("regfs.cli.mount:mount", "Mount a registry, or all of yours, on a folder."),
    "umount": ("regfs.cli.mount:umount", "Unmount a folder."),
    "status": ("regfs.cli.status:status", "Show what is mounted, and how its registries do."),
    "refresh": ("regfs.cli.refresh:refresh", "Forget listings, so that the next look asks the registry."),
    "ls": ("regfs.cli.ls:ls", "List a folder of a registry without a mount."),
    "cat": ("regfs.cli.cat:cat", "Print files of a registry without a mount."),
    "stat": ("regfs.cli.stat:stat", "Show what is known of a path without a mount."),
    "ref": ("regfs.cli.ref:ref", "Print the full reference of a path."),
    "du": ("regfs.cli.du:du", "Say how large images are, and what they share."),
    "diff": ("regfs.cli.diff:diff", "Say what changed between two images."),
    "warm": ("regfs.cli.warm:warm", "Fetch images ahead into the cache."),
    "rm": ("regfs.cli.rm:rm", "Delete tags, each one alone."),
    "login": ("regfs.cli.login:login", "Sign in to a registry and remember it."),
    "reconnect": ("regfs.cli.reconnect:reconnect", "Sign in again to a registry that you have."),
    "logout": ("regfs.cli.logout:logout", "Forget a registry and its credentials."),
    "registries": ("regfs.cli.registries:registries", "List your registries, and which answer."),
    "docker-login": ("regfs.cli.docker_login:docker_login", "Hand a registry's credentials to Docker."),
    "plugins": ("regfs.cli.plugins:plugins", "List providers and auth methods, or begin a new one."),
    "cache": ("regfs.cli.cache:cache", "Show, verify or shrink what is kept on disk."),
    "config": ("regfs.cli.config:config", "Show the settings, or check the config files."),
}
"""Each command's name → where it is, and what it does in one sentence."""


_LOGS_ITSELF: Final = frozenset({"mount", "umount"})
"""Commands that set up their log by their own options."""


class LazyGroup(click.Group):
    """A group whose commands are named in `COMMANDS` and imported when one is run or asked for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the table's order: what is used most comes first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command, or None where there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name, importing none."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`regfs COMMAND --help` says more about a command.",
)
@click.version_option(__version__, prog_name="regfs")
@click.option(
    "-v", "--verbose", count=True, help="Say more on standard error; on a failure, where it happened."
)
@click.pass_context
def regfs(ctx: click.Context, verbose: int) -> None:
    """Mount container registries as a filesystem, and work in them with a shell."""
    ctx.obj = verbose
    if ctx.invoked_subcommand not in _LOGS_ITSELF:
        from regfs.log import set_up

        set_up(verbose)
