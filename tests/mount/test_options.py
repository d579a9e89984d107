"""``-o`` means what mount(8) users expect, and the mount table is read as the kernel writes it."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import ConfigError
from regfs.fuse.handshake import MAX_BACKGROUND, ask_for_more
from regfs.fuse.mount_table import mount_of, parse_line
from regfs.fuse.session import mount_options, source_name
from regfs.mount_options import OPTIONS, parse_options
from regfs.notify import notify


def test_options_of_every_filesystem_are_accepted_and_change_nothing() -> None:
    text = "defaults,auto,noauto,user,users,nofail,nosuid,nodev,noexec,noatime,relatime,_netdev,x-systemd.automount,x-gvfs-show,comment=mine"
    assert parse_options([text]) == parse_options([])


def test_settings_and_what_concerns_the_registry_are_told_apart() -> None:
    found = parse_options(
        ["rw,ttl=2.5,umask=027,uid=0", "insecure,ca=/etc/own.pem,name=mine,only=team/*:ops/**"]
    )
    assert found.settings == {"rw": True, "ttl": 2.5, "umask": 0o27, "uid": 0}
    assert found.connection == {
        "insecure": True,
        "ca": Path("/etc/own.pem"),
        "name": "mine",
        "only": ("team/*", "ops/**"),
    }


def test_later_options_win_and_lists_grow() -> None:
    found = parse_options(["rw,ttl=1,namespaces=a", "ro,ttl=2,namespaces=b"])
    assert found.settings == {"rw": False, "ttl": 2.0}
    assert found.connection == {"namespaces": ("a", "b")}


def test_a_path_is_the_callers_and_may_hold_an_escaped_comma(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_options(["credentials=a\\,b"]).settings == {"credentials": tmp_path / "a,b"}


def test_what_mount_8_says_of_itself_means_nothing_and_writable_does() -> None:
    assert parse_options(["rw,dev,suid"], by_mount=True).settings == {}
    assert parse_options(["rw,writable"], by_mount=True).settings == {"rw": True}


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as failure:
        parse_options(["suid,frobnicate,ttl=,name=a:b,rw=1"])
    lines = str(failure.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "-o suid", "-o frobnicate", "-o ttl", "-o name", "-o rw",
    ]  # fmt: skip


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        parse_options([text])
    except ConfigError as error:
        words = str(error)
    else:
        words = "-o "
    assert words.startswith("-o ")


def test_the_kernel_is_never_given_setuid_devices_or_slow_permission_checks() -> None:
    plain = mount_options("localhost:5000", writable=False, allow_other=False)
    assert plain == {"fsname=regfs#localhost:5000", "subtype=regfs", "nosuid", "nodev", "ro"}
    shared = mount_options("", writable=True, allow_other=True)
    assert shared == {
        "fsname=regfs",
        "subtype=regfs",
        "nosuid",
        "nodev",
        "allow_other",
        "default_permissions",
    }


def test_no_address_can_smuggle_in_a_mount_option() -> None:
    assert source_name("oci:/tmp/a,suid,b\\c é") == "regfs#oci:/tmp/a?suid?b?c ?"


def test_a_line_of_the_mount_table_is_read_with_its_escapes() -> None:
    line = r"88 66 0:41 / /mnt/a\040b ro,nosuid,nodev shared:1 - fuse.regfs regfs\043h:1 ro,user_id=0"
    found = parse_line(line)
    assert found is not None
    assert (found.path, found.source, found.device) == (Path("/mnt/a b"), "regfs#h:1", "0:41")
    assert found.is_ours
    assert "ro" in found.options
    assert parse_line("nonsense") is None


def test_an_automount_trigger_is_no_mount() -> None:
    found = parse_line("30 1 0:30 / /mnt rw - autofs systemd-1 rw,fd=1")
    assert found is not None
    assert found.is_automount_trigger
    assert not found.is_ours


def test_the_mount_of_a_path_is_the_deepest() -> None:
    found = mount_of(Path("/proc/self/status"))
    assert found is not None
    assert found.type == "proc"


def reply(flags: int, error: int = 0) -> bytes:
    return struct.pack(
        "=IiQIIIIHHIIHHI", 80, error, 7, 7, 38, 131072, flags, 12, 9, 1 << 20, 1, 256, 0, 0
    ) + bytes(28)


def test_the_init_reply_asks_for_what_is_offered_and_leaves_the_rest_as_it_is() -> None:
    before = reply(0b1)
    after, got = ask_for_more(before, offered=1 << 18)
    assert got.parallel_lookups
    assert not got.cached_links
    assert after[:28] == before[:28]
    assert struct.unpack_from("=IHH", after, 28) == (1 | 1 << 18, MAX_BACKGROUND, MAX_BACKGROUND * 3 // 4)
    assert after[36:] == before[36:]


def test_the_init_reply_asks_for_shared_mappings_where_they_are_offered() -> None:
    before = reply(0b1)
    after, got = ask_for_more(before, offered=1 << 36 | 1 << 30)
    assert got.shared_maps
    assert struct.unpack_from("=I", after, 28)[0] == 1 | 1 << 30
    assert struct.unpack_from("=I", after, 48)[0] == 1 << 4
    assert after[36:48] == before[36:48]
    assert after[52:] == before[52:]
    older = before[:40]
    assert ask_for_more(older, offered=1 << 36 | 1 << 30)[1].shared_maps is False
    assert ask_for_more(older, offered=1 << 36 | 1 << 30)[0][36:] == older[36:]


def test_the_init_reply_lets_the_kernel_read_files_itself_where_it_offers_that() -> None:
    after, got = ask_for_more(reply(0b1), offered=1 << 37 | 1 << 30)
    assert got.passthrough
    more, depth = struct.unpack_from("=II", after, 48)
    assert (more, depth) == (1 << 5, 1)
    assert not ask_for_more(reply(0b1), offered=1 << 30)[1].passthrough


def test_a_refusal_of_init_is_passed_on_as_it_is() -> None:
    before = reply(0, error=-71)
    assert ask_for_more(before, offered=-1 & 0xFFFFFFFF)[0] == before


@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_hears_what_it_asked_to_hear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool
) -> None:
    name = f"@regfs-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0"))
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1", "STATUS=up")
        assert channel.recv(100) == b"READY=1\nSTATUS=up"
    notify("STOPPING=1")  # nobody listens any more, and that is no failure
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("STOPPING=1")


def test_every_option_is_in_the_help() -> None:
    from regfs.cli.mount import mount

    text = mount.help or ""
    long = {option.lstrip("-").replace("-", "_") for parameter in mount.params for option in parameter.opts}
    assert [name for name in OPTIONS if name not in long and name not in text] == []
