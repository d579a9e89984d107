"""What a person may rely on in a config file."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs import config, config_values
from regfs.config import Settings, check_config, config_files, load_settings
from regfs.connection import Connection
from regfs.errors import ConfigError
from regfs.toml_lines import KeyPath, TomlLines


def written(folder: Path, text: str, name: str = "config.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def mistakes(folder: Path, text: str) -> list[str]:
    """The mistakes in ``text``, without the file's name: ``LINE: KEY: REASON``."""
    file = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(files=[file])
    lines = caught.value.message.splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    return [line.removeprefix(f"{file}:").strip() for line in lines]


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(files=[tmp_path / "none.toml"]) == Settings()


def test_the_users_file_wins_over_etc_and_the_command_line_over_both(tmp_path: Path) -> None:
    etc = written(tmp_path, "ttl = 60\nretries = 1\nmax_requests = 3\n", "etc.toml")
    user = written(tmp_path, "ttl = 20\nretries = 2\n", "user.toml")
    settings = load_settings({"ttl": 5.0, "retries": None}, [etc, user])
    assert (settings.ttl, settings.retries, settings.max_requests) == (5.0, 2, 3)


def test_a_registry_in_the_users_file_replaces_the_one_of_etc_whole(tmp_path: Path) -> None:
    etc = written(
        tmp_path,
        '[registries.a]\naddress = "a.example"\nonly = ["x/*"]\n[registries.b]\naddress = "b.example"\n',
        "etc.toml",
    )
    user = written(tmp_path, '[registries.a]\naddress = "other.example"\n', "user.toml")
    by_name = {c.name: c for c in load_settings(files=[etc, user]).registries}
    assert by_name["a"].address == "other.example"
    assert by_name["a"].only == ()
    assert by_name["b"].address == "b.example"


def test_every_setting_of_a_registry_is_read(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [registries.work]
        address = "https://Registry.Example.com:443/prefix/"
        provider = "generic"
        auth = "basic"
        username = "ann"
        insecure = true
        ca = "/etc/ssl/own.pem"
        namespaces = ["library", "team/app/"]
        only = ["team/*"]
        allow_hosts = ["storage.internal:9000"]
        tag_delete = "native"
        options = { region = "eu" }
        """,
    )
    (work,) = load_settings(files=[file]).registries
    assert work.address == "registry.example.com/prefix"
    assert (work.provider, work.auth, work.username, work.insecure) == ("generic", "basic", "ann", True)
    assert work.ca == Path("/etc/ssl/own.pem")
    assert work.namespaces == ("library", "team/app")
    assert (work.only, work.allow_hosts) == (("team/*",), ("storage.internal:9000",))
    assert (work.tag_delete, work.options) == ("native", (("region", "eu"),))


def test_a_registry_needs_no_more_than_its_address(tmp_path: Path) -> None:
    file = written(tmp_path, '[registries.local]\naddress = "localhost:5000"\n')
    (local,) = load_settings(files=[file]).registries
    assert (local.address, local.provider, local.auth) == ("localhost:5000", "generic", "challenge")


def test_a_folder_of_layouts_is_known_by_its_address(tmp_path: Path) -> None:
    file = written(tmp_path, f'[registries.images]\naddress = "oci:{tmp_path}"\n')
    (images,) = load_settings(files=[file]).registries
    assert (images.address, images.provider) == (f"oci:{tmp_path}", "oci")


def test_all_mistakes_are_named_at_once_with_their_lines(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        '# settings\nttl = "ten"\nretrys = 3\n\n[registries.work]\naddress = "a b"\nonly = [\n  "team/*",\n  "Team",\n]\n'
        '[registries."x:y"]\n',
    )
    assert [line.partition(":")[0] for line in found] == ["2", "3", "6", "7", "11", "11"]
    text = "\n".join(found)
    assert "ttl: must be a number of seconds, is a string" in text
    assert "retrys: there is no such setting; did you mean 'retries'?" in text
    assert "registries.work.only: member 2 must be a pattern" in text
    assert "'x_y' would be one" in text
    assert "has no address" in text


def test_a_file_that_is_no_toml_is_named_with_the_line(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "ttl = 1\nrw = = 2\n") == ["2: Invalid value"]


@pytest.mark.parametrize(
    "text",
    [
        'password = "hunter2secret"',
        'token = "hunter2secret"',
        '[registries.a]\naddress = "a.example"\npassword = "hunter2secret"',
        '[registries.a]\naddress = "a.example"\nidentity_token = "hunter2secret"',
        '[registries.a]\naddress = "a.example"\noptions = { client_secret = "hunter2secret" }',
        '[registries.a]\naddress = "ann:hunter2secret@a.example"',
        '[registries.a]\naddress = "https://ann:hunter2secret@a.example/x"',
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    (found,) = mistakes(tmp_path, text + "\n")
    assert "regfs login" in found
    assert "hunter2secret" not in found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ttl = inf", "must be from"),
        ("ttl = -1", "must be from"),
        ("ttl = true", "must be a number of seconds, is a boolean"),
        ('rw = "yes"', "must be true or false, is a string"),
        ("retries = 1.5", "must be an integer, is a float"),
        ("max_requests = 0", "must be from 1 to 256"),
        ('umask = "9"', "octal"),
        ('log_file = "regfs.log"', "absolute path"),
        ("registries = 3", "a table for each registry"),
        ("registries.work = 3", "must be a table"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_it_must_be(
    tmp_path: Path, line: str, reason: str
) -> None:
    (found,) = mistakes(tmp_path, f"\n{line}\n")
    assert found.startswith("2: ")
    assert reason in found


def test_a_mistake_on_the_command_line_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the command line: ttl: must be from 0"):
        load_settings({"ttl": -1.0}, [])


def test_umask_is_read_as_octal(tmp_path: Path) -> None:
    assert load_settings(files=[written(tmp_path, 'umask = "027"\n')]).umask == 0o027
    assert load_settings(files=[written(tmp_path, "umask = 0o027\n")]).umask == 0o027


def test_a_home_folder_is_spelled_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(files=[written(tmp_path, 'log_file = "~/x.log"\n')]).log_file == tmp_path / "x.log"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe", "UTF-8"), (b"a=" + b"[" * 100_000, "nested"), (b"#" * 2_000_000, "limit")],
)
def test_a_file_that_cannot_be_read_is_a_mistake_and_no_crash(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    (found,) = check_config([file])
    assert found.startswith(str(file))
    assert reason in found


def test_a_folder_in_place_of_the_file_is_a_mistake(tmp_path: Path) -> None:
    (found,) = check_config([tmp_path])
    assert found == f"{tmp_path}: cannot be read: Is a directory"


def test_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"ttl = 5\r\nretries = 'x'\r\n")
    (found,) = check_config([file])
    assert found.startswith(f"{file}:2: retries:")


def test_a_plugin_that_is_not_there_stops_nothing_and_is_named_by_the_check(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[registries.a]\naddress = "a.example"\n\n[registries.b]\naddress = "b"\nprovider = "nexus"\n',
    )
    assert [c.name for c in load_settings(files=[file]).registries] == ["a", "b"]
    (found,) = [line for line in check_config([file]) if "nexus" in line]
    assert found.startswith(f"{file}:4: registries.b.provider: there is no provider 'nexus'")


def test_xdg_config_home_is_used_where_it_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_files()[1] == tmp_path / "regfs" / "config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_files()[1] == tmp_path / ".config" / "regfs" / "config.toml"


# ── lines ────────────────────────────────────────────────────────────────────────────────────────

_SCALARS = st.one_of(
    st.integers(-9, 9).map(str),
    st.booleans().map(lambda b: str(b).lower()),
    st.just('"plain"'),
    st.just('"""\nseveral = 1\nlines\n"""'),
    st.just("[\n  1,\n\n  2, # two\n]"),
    st.just("{ inner = 1 }"),
)
_NAMES = st.sampled_from(["a", "b", "several", "inner", "longer-key"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, int]]:
    """A TOML text, and on which line each of its statements begins."""
    lines: list[str] = []
    where: dict[KeyPath, int] = {}
    for table in [None, *draw(st.lists(_NAMES, unique=True, max_size=3))]:
        lines += draw(st.lists(st.sampled_from(["", "# a = 1", "   "]), max_size=2))
        prefix: KeyPath = ()
        if table is not None:
            prefix = ("registries", table)
            lines.append(f"[registries.{table}]")
            where[prefix] = len(lines)
        for key in draw(st.lists(_NAMES, unique=True, max_size=4)):
            lines += draw(st.lists(st.sampled_from(["", "# b = 2"]), max_size=2))
            where[(*prefix, key)] = len(lines) + 1
            lines += f"{key} = {draw(_SCALARS)}".split("\n")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n# end\n"])), where


@given(documents())
def test_every_key_is_found_on_the_line_where_its_statement_begins(
    document: tuple[str, dict[KeyPath, int]],
) -> None:
    text, where = document
    tomllib.loads(text)
    lines = TomlLines(text)
    assert {path: lines.line(path) for path in where} == where
    assert lines.line(("registries", "absent")) is None


def test_a_dotted_key_and_a_table_made_by_the_way_are_found() -> None:
    lines = TomlLines("x = 1\na.b.c = 2\n[d.e.f]\ng = 3\n[[h]]\ni = 1\n[[h]]\ni = 2\n")
    assert lines.line(("a", "b")) == 2
    assert lines.line(("d", "e")) == 3
    assert lines.line(("d", "e", "f", "g")) == 4
    assert lines.line(("h", 1, "i")) == 8


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.toml"


@given(text=st.text(max_size=200))
def test_whatever_the_file_holds_it_is_settings_or_a_config_error(scratch: Path, text: str) -> None:
    scratch.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = check_config([scratch])
    assert all(line.startswith(str(scratch)) for line in found)
    if not found:
        assert isinstance(load_settings(files=[scratch]), Settings)


# ── the documentation ────────────────────────────────────────────────────────────────────────────

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def documented(table: str) -> set[str]:
    rows = PAGE.read_text().partition(f"<!-- {table} -->")[2].partition("\n\n")[0].splitlines()[3:]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_every_setting_is_documented_and_no_other() -> None:
    settings = {field.name for field in fields(Settings)} - {"registries"}
    assert documented("settings") == settings == set(config._TOP)
    assert documented("registry") == set(config_values.REGISTRY)
    connection = {field.name for field in fields(Connection)} - {"name", "generation", "account", "part"}
    assert set(config_values.REGISTRY) == connection


def test_the_documented_example_is_a_config_without_mistakes(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    assert check_config([written(tmp_path, example[1])]) == []


def test_limits_of_images_are_set_by_name_and_only_within_reason(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("image_limits = { members = 5_000_000, depth = 1000 }\n")
    assert load_settings(files=[file]).image_limits == (("depth", 1000), ("members", 5_000_000))
    for wrong, reason in (
        ("{ membres = 1 }", "no such limit"),
        ("{ members = 0 }", "members"),
        ("{ name = 256 }", "name"),
        ("{ path = 1.5 }", "path"),
        ("7", "a table"),
    ):
        file.write_text(f"image_limits = {wrong}\n")
        with pytest.raises(ConfigError, match=reason):
            load_settings(files=[file])
