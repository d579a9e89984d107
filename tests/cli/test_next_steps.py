"""What a command says to do next is something that can be done, and that helps: with strangers' plugins too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.harness import SECRET, signed_in
from tests.providers.documented import example_text
from tests.support.mounts import Home, mounted


@pytest.fixture
def plugged(home: Home, tmp_path: Path) -> Home:
    """A home with the plugins of docs/plugins.md, each a file."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name in ("forge", "shelf", "key"):
        file = folder / f"{name}.py"
        file.write_text(example_text(name))
        file.chmod(0o600)
    home.write_config(f'plugins_dir = "{folder}"\n')
    return home


@pytest.fixture
def keyed() -> Iterator[FakeRegistry]:
    """A registry that wants a key, and lists by an API of its own."""
    with FakeRegistry(signed_in(Behaviour(auth=Auth.KEY, key_header="X-Forge-Key"))) as registry:
        registry.serve("_forge/projects", lambda: {"projects": list(registry.content())})
        registry.push("team/app", "v1")
        yield registry


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


# ── what is no web server is not asked as one ──


def test_a_store_that_is_missing_is_looked_for_where_it_is(plugged: Home, tmp_path: Path) -> None:
    done = plugged.regfs("ls", f"shelf:{tmp_path}/gone.shelf")
    assert done.returncode != 0
    assert f"Check that shelf:{tmp_path}/gone.shelf is spelled right" in done.stderr
    for word in ("curl", "https://", "HTTPS_PROXY"):
        assert word not in done.stderr


# ── a mistake on the command line is not one in a config ──


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ls", "host:99999/team"), "not a port"),
        (("mount", "-o", "colour=blue", "localhost:5000", "mnt"), "colour"),
        (("plugins", "new", "For_ge"), "not a plugin's name"),
        (("plugins", "new", "forge", "full"), "full holds something already"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_mistake_on_the_command_line_sends_nobody_to_the_config(
    home: Home, arguments: tuple[str, ...], said: str
) -> None:
    (home.path / "full").mkdir()
    (home.path / "full" / "kept").touch()
    done = home.regfs(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "config --check" not in done.stderr


def test_a_mistake_in_the_config_does(home: Home) -> None:
    home.write_config("ttl = 'soon'\n")
    assert "run `regfs config --check`" in home.regfs("registries").stderr


def test_an_auth_method_that_there_is_not_is_told_from_one_that_is_broken(home: Home) -> None:
    done = home.regfs("login", "--auth", "typo", "--username", "me", "localhost:1")
    assert done.returncode == 1
    assert "there is no auth method 'typo'; known: anonymous, basic, challenge" in done.stderr
    assert "Name one of those that there are" in done.stderr
    assert "pip" not in done.stderr


# ── files of credentials ──


def test_a_key_alone_in_a_file_signs_in_where_the_method_asks_for_no_user_name(
    plugged: Home, keyed: FakeRegistry, tmp_path: Path
) -> None:
    for word in ("password", "key"):
        file = private(tmp_path / word, f"{word}={SECRET}\n")
        options = ("-o", f"provider=forge,auth=forge-key,credentials={file}")
        with mounted(*options, keyed.address, home=plugged) as mount:
            assert mount.list("team/app") == ["v1"]
            assert mount.stderr == ""
            assert SECRET not in mount.log()


def test_what_is_wrong_with_a_file_is_said_at_the_mount_in_the_log_and_with_each_error(
    plugged: Home, keyed: FakeRegistry, tmp_path: Path
) -> None:
    file = private(tmp_path / "credentials", f"# mine\nkee={SECRET}\n")
    options = ("-o", f"provider=forge,auth=forge-key,credentials={file}")
    wrong = f"{file}, line 2: expected key=value with one of the keys username, "
    with mounted(*options, keyed.address, home=plugged) as mount:
        assert wrong in mount.stderr
        assert mount.run("ls team/app").returncode != 0
        assert wrong in mount.errors()
        assert f"the file of credentials is of no use: {wrong}" in mount.log()
        for text in (mount.stderr, mount.errors(), mount.log()):
            assert SECRET not in text


def test_a_file_that_nobody_has_asked_for_yet_is_looked_at_too(home: Home, tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with mounted("-o", f"credentials={tmp_path}/gone", registry.address, home=home) as mount:
            assert f"there is no credentials file {tmp_path}/gone" in mount.stderr
            assert mount.list("team/app") == ["v1"]


def test_a_password_alone_is_refused_where_the_method_asks_for_a_user_name(
    home: Home, tmp_path: Path
) -> None:
    file = private(tmp_path / "credentials", f"password={SECRET}\n")
    with (
        FakeRegistry(signed_in()) as registry,
        mounted("-o", f"credentials={file}", registry.address, home=home) as mount,
    ):
        assert f"{file} has a password and no username" in mount.stderr


# ── the command that signs in ──


def test_the_login_that_is_advised_is_that_of_the_connection(plugged: Home, keyed: FakeRegistry) -> None:
    options = ("-o", "provider=forge,auth=forge-key")
    command = f"regfs login --provider forge --auth forge-key {keyed.address}"
    with mounted(*options, keyed.address, home=plugged) as mount:
        assert f"`{command}`" in mount.stderr
        assert mount.run("ls team/app").returncode != 0
        assert f"`{command}`" in mount.errors()
    done = plugged.regfs(*command.split()[1:-1], "--password-stdin", keyed.address, stdin=f"{SECRET}\n")
    assert "the sign-in is good" in done.stderr, "and there is no keyring to keep it in"


def test_a_credential_that_docker_cannot_use_is_not_to_be_kept_by_it(
    plugged: Home, keyed: FakeRegistry
) -> None:
    options = ("--provider", "forge", "--auth", "forge-key", "--password-stdin")
    done = plugged.regfs("login", *options, keyed.address, stdin=f"{SECRET}\n")
    assert done.returncode == 1
    assert "-o credentials=FILE" in done.stderr
    assert "docker" not in done.stderr


# ── plugins that lack something ──


def test_a_provider_whose_own_auth_method_is_not_there_is_listed_with_that(
    plugged: Home, tmp_path: Path
) -> None:
    file = tmp_path / "plugins" / "forge.py"
    file.write_text(file.read_text().replace('"challenge"', '"no-such-key"'))
    (line,) = [one for one in plugged.regfs("plugins", check=True).stdout.splitlines() if str(file) in one]
    assert " incomplete " in line
    assert "there is no auth method 'no-such-key'" in line
    rows = json.loads(plugged.regfs("plugins", "--json", check=True).stdout)
    lacks = {row["name"]: row["lacks"] for row in rows if "lacks" in row}
    assert "no-such-key" in lacks.pop("forge")
    assert set(lacks.values()) == {""}
