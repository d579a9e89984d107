"""``regfs config``: the settings in force, or what is wrong with the config files."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, say

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@click.option("--check", is_flag=True, help="Only say what is wrong with the config files.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def config(check: bool, as_json: bool) -> int:
    """Show the settings in force and the files that they come from.

    With --check: each mistake on a line of its own, with file, line and key, and exit code 1 if there is any.
    """
    if check:
        return _check(as_json)
    from regfs.config import load_settings

    loaded = load_settings()
    settings = {key: _plain(value) for key, value in dataclasses.asdict(loaded).items()}
    settings["image_limits"] = dict(loaded.image_limits)
    if as_json:
        output.as_json({"files": _files(), "settings": settings})
    else:
        _show(settings)
    return OK


def _check(as_json: bool) -> int:
    from regfs.config import check_config

    mistakes = check_config()
    if as_json:
        output.as_json({"files": _files(), "mistakes": mistakes})
        return FAILED if mistakes else OK
    for mistake in mistakes:
        say(f"regfs: {mistake}")
    if not mistakes:
        output.line("no mistakes in " + (" and ".join(_files()) or "the config files: there are none"))
    return FAILED if mistakes else OK


def _files() -> list[str]:
    from regfs.config import config_files

    return [str(file) for file in config_files() if file.exists()]


def _show(settings: Mapping[str, object]) -> None:
    for file in _files() or ["no config file"]:
        output.line(f"# {file}")
    for key, value in settings.items():
        if key != "registries":
            output.line(f"{key} = {_shown(value)}")
    registries = settings["registries"]
    assert isinstance(registries, list)
    for registry in registries:
        output.line(f"registry {registry['name']}: {registry['address']} ({registry['provider']})")


def _shown(value: object) -> str:
    if value is None or value == {}:
        return "not set"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {limit}' for name, limit in value.items())} }}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: object) -> object:
    """A settings value as JSON knows it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "generation"}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
