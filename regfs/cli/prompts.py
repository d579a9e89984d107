"""Asking a person: on the terminal, secrets without echo; or reading a secret from standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import click

from regfs.cli.edge import Advised
from regfs.ports import Field

MAX_SECRET: Final = 64 * 1024
"""The longest secret read from standard input, in bytes: tokens of cloud registries run to kilobytes."""


class NothingTyped(Advised):
    """A required ``field`` was answered with nothing."""

    def __init__(self, field: Field) -> None:
        super().__init__(f"no {field.label.lower()} was given: nothing was changed")
        self.field = field


def merged(method: Sequence[Field], provider: Sequence[Field]) -> list[Field]:
    """The auth method's fields; one that the provider has too is asked for in the provider's words.

    A secret stays one, whoever says so.
    """
    own = {field.name: field for field in provider}
    return [
        replace(own[field.name], secret=field.secret or own[field.name].secret)
        if field.name in own
        else field
        for field in method
    ]


def ask(fields: Sequence[Field], given: Mapping[str, str]) -> dict[str, str]:
    """An answer to each field: what was ``given`` on the command line, else what is typed.

    UsageError where something is missing and there is no terminal to ask on, NothingTyped where a required field is
    left empty. Secrets are from then on blotted out of whatever is printed or logged.
    """
    from regfs.log import register_secret

    answers = dict(given)
    for field in fields:
        if field.name not in answers and (field.required or sys.stdin.isatty()):
            answers[field.name] = _ask_one(field)
        if field.secret:
            register_secret(answers.get(field.name, ""))
    return answers


def secret_from_stdin() -> str:
    """The secret piped to us, without the line end that `echo` and `pass` put behind it. Advised: there is none."""
    data = sys.stdin.buffer.read(MAX_SECRET + 1)
    if len(data) > MAX_SECRET:
        raise Advised(f"more than {MAX_SECRET} bytes came on standard input: that is no password")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Advised("what came on standard input is no UTF-8 text") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise Advised("standard input was empty: no password was read")
    return secret


def _ask_one(field: Field) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(_no_terminal(field))
    if field.help:
        click.echo(field.help, err=True)
    answer = _hidden(field) if field.secret else _visible(field)
    if field.required and not answer:
        raise NothingTyped(field)
    return answer


def _no_terminal(field: Field) -> str:
    if field.secret:
        return (
            f"there is no terminal to ask for the {field.label.lower()} on: pipe it in with --password-stdin"
        )
    if field.name == "username":
        return "there is no terminal to ask for the user name on: give --username (or --anonymous)"
    return f"there is no terminal to ask for {field.label.lower()!r} on"


def _visible(field: Field) -> str:
    click.echo(f"{field.label}: ", nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise NothingTyped(field)
    return line.strip()


def _hidden(field: Field) -> str:
    import getpass

    try:
        return getpass.getpass(f"{field.label}: ")
    except EOFError:
        raise NothingTyped(field) from None
