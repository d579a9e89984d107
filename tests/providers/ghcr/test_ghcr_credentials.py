"""Where GitHub's tokens come from: the environment and `gh`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from regfs.connection import Connection
from regfs.errors import (
    CredentialError,
)
from regfs.ports import (
    BringsCredentials,
    Credential,
)
from regfs.providers.ghcr import GhcrProvider
from regfs.providers.ghcr_credentials import EnvironmentSource, GhSource

# ── where tokens come from ───────────────────────────────────────────────────────────────────────

HERE = Connection("r", "ghcr.io", "ghcr")


def gh(folder: Path, script: str) -> dict[str, str]:
    """An environment with a `gh` of our own, and a counter of how often it ran."""
    folder.mkdir(exist_ok=True)
    program = folder / "gh"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/ran"\n{script}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def got(source: GhSource | EnvironmentSource, connection: Connection = HERE) -> Credential | None:
    return trio.run(source.get, connection)


def test_the_provider_brings_the_environment_and_gh() -> None:
    provider = GhcrProvider()
    assert isinstance(provider, BringsCredentials)
    assert [type(s) for s in provider.credential_sources(HERE)] == [EnvironmentSource, GhSource]


def test_gh_is_asked_for_the_connections_host_and_user_once_for_all_who_wait(tmp_path: Path) -> None:
    source = GhSource("github.com", "x-access-token", gh(tmp_path / "bin", "sleep 0.2; echo gho_secret"))
    found: list[Credential | None] = []

    async def main() -> None:
        async def ask() -> None:
            found.append(await source.get(HERE))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)

    trio.run(main)
    assert {(c.username, c.secret) for c in found if c} == {("x-access-token", "gho_secret")}
    assert (tmp_path / "bin" / "ran").read_text() == "auth token --hostname github.com\n"
    named = Connection("r", "ghcr.io", "ghcr", username="octocat")
    again = got(GhSource("github.com", "octocat", gh(tmp_path / "bin", "echo gho_secret")), named)
    assert again is not None
    assert again.username == "octocat"
    assert "--user octocat" in (tmp_path / "bin" / "ran").read_text()
    assert "gho_secret" not in repr(again)


def test_a_gh_that_is_absent_or_not_signed_in_has_none(tmp_path: Path) -> None:
    assert got(GhSource("github.com", "x", {"PATH": str(tmp_path)})) is None
    assert got(GhSource("github.com", "x", gh(tmp_path / "no", "echo none >&2; exit 1"))) is None
    relative = {"PATH": "bin:."}
    assert got(GhSource("github.com", "x", relative)) is None


@pytest.mark.parametrize("script", ["echo two words", "head -c 100000 /dev/zero | tr '\\0' a"])
def test_a_gh_that_says_something_else_is_an_error_without_what_it_said(tmp_path: Path, script: str) -> None:
    with pytest.raises(CredentialError) as caught:
        got(GhSource("github.com", "x", gh(tmp_path / "bin", script)))
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "environment", "secret", "user"),
    [
        ("github.com", {"GITHUB_TOKEN": "t2", "GITHUB_ACTOR": "bot"}, "t2", "bot"),
        ("github.com", {"GH_TOKEN": "t1", "GITHUB_TOKEN": "t2"}, "t1", "x"),
        ("octo.ghe.com", {"GH_TOKEN": "t1"}, "t1", "x"),
        ("git.corp", {"GH_ENTERPRISE_TOKEN": "e", "GH_TOKEN": "t1"}, "e", "x"),
        ("git.corp", {"GH_TOKEN": "t1", "GITHUB_TOKEN": "t2"}, None, ""),
        ("github.com", {"GH_ENTERPRISE_TOKEN": "e", "GH_TOKEN": " "}, None, ""),
    ],
)
def test_a_token_of_the_environment_goes_to_the_host_that_it_is_for(
    host: str, environment: dict[str, str], secret: str | None, user: str
) -> None:
    found = got(EnvironmentSource(host, "x", environment))
    assert (found and (found.secret, found.username)) == (secret and (secret, user))
