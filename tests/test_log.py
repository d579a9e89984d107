"""No secret reaches a log, whichever way it came."""

from __future__ import annotations

import base64
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs import redaction
from regfs.errors import ConfigError
from regfs.log import redact, register_secret, set_up

SECRET = "hunter2-Correct.Horse"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("regfs")
    before = root.handlers[:], root.level, ours.level, sys.excepthook, threading.excepthook
    yield
    root.handlers[:], sys.excepthook, threading.excepthook = before[0], before[3], before[4]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)
    logging.raiseExceptions = True
    redaction._registered.clear()
    redaction._known.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Basic {SECRET}",
        f"authorization: {SECRET} and more of {SECRET}",
        f"headers=[(b'Host', b'x'), (b'Authorization', b'Basic {SECRET}')]",
        f"{{'authorization': 'Bearer {SECRET}', 'accept': '*/*'}}",
        f'{{"Proxy-Authorization": "Basic {SECRET}"}}',
        f"Set-Cookie: session={SECRET}; path=/",
        f"sent Bearer {SECRET} there",
        f"sent bearer {SECRET} there",
        f"token {TOKEN} taken",
        f"https://ann:{SECRET}@host.example/v2/",
        f"https://{SECRET}@host.example/v2/",
        f"https://ann:p@ss/{SECRET}@host.example/v2/",
        f"ann:{SECRET}@localhost:5000",
        f"GET https://s3.example/blob?X-Amz-Signature={SECRET}&X-Amz-Date=1",
        f"GET https://x.example/blob?sv=1&sig={SECRET}&se=2",
        f"GET https://x.example/blob?Policy={SECRET}&Signature={SECRET}&Key-Pair-Id={SECRET}",
        f"GET /v2/x/blobs/uploads/?_state={SECRET}",
        f"https://x.example/cb?{SECRET}&a=b",
        f"https://x.example/cb?{SECRET}",
        f"grant_type=password&username=ann&password={SECRET}&service=x",
        f"grant_type=refresh_token&refresh_token={SECRET}",
        f'{{"access_token": "{SECRET}", "expires_in": 300}}',
        f'{{"auths": {{"x": {{"auth": "{SECRET}", "identitytoken": "{SECRET}"}}}}}}',
        f"client_secret={SECRET}",
        f"password='{SECRET} with blanks'",
        "glpat-" + SECRET.replace(".", "-"),
        "dckr_pat_" + SECRET.replace(".", "-"),
    ],
)
def test_what_is_shaped_like_a_secret_is_blotted_out(text: str) -> None:
    assert SECRET not in redact(text)
    assert TOKEN not in redact(text)
    assert redaction.BLOT in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "the token endpoint at auth.example refuses basic auth",
        "401 from localhost:5000: sign in with a bearer token",
        'Bearer realm="https://auth.example/token",service="registry",scope="repository:team/app:pull"',
        'Basic realm="harbor"',
        "GET https://localhost:5000/v2/_catalog?n=100&last=team/app",
        "GET https://auth.example/token?service=registry&scope=repository:team/app:pull",
        f"localhost:5000/team/app:v1@sha256:{'0' * 64}",
        f"https://localhost:5000/team/app@sha256:{'0' * 64}",
        "token_requests=3 requests=10",
        "config key `auth`: there is no auth method 'x'",
        "/mnt/registry/team/app/v1/manifest.json: not found",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert redact(text) == text


def test_userinfo_is_told_from_a_port() -> None:
    assert redact("https://host:5000/a/b@c") == "https://host:5000/a/b@c"


ENCODINGS: list[Callable[[str], str]] = [
    str,
    repr,
    json.dumps,
    lambda s: quote(s, safe=""),
    lambda s: urlencode({"x": s}),
    lambda s: base64.b64encode(s.encode()).decode(),
    lambda s: base64.b64encode(b"ann:" + s.encode()).decode(),
    lambda s: base64.b64encode(b"anne:" + s.encode()).decode(),
    lambda s: base64.b64encode(b"robert:" + s.encode() + b"\n").decode(),
    lambda s: base64.urlsafe_b64encode(b"ann:" + s.encode()).decode(),
]


@given(
    secret=st.text(
        st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]),
        min_size=8,
        max_size=40,
    ),
    encode=st.sampled_from(ENCODINGS),
    around=st.tuples(st.sampled_from(["", "x ", '"', "k: "]), st.sampled_from(["", " x", '"', ", y"])),
)
def test_a_registered_secret_is_found_in_every_common_encoding(
    secret: str, encode: Callable[[str], str], around: tuple[str, str]
) -> None:
    redaction._registered.clear()
    register_secret(secret)
    spelled = encode(secret)
    found = redact(around[0] + spelled + around[1])
    assert secret not in found.replace(redaction.BLOT, "\0")
    assert spelled not in found
    assert redaction.BLOT in found


@given(st.text(max_size=300))
def test_redaction_is_done_once_and_for_all(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(
    name=st.sampled_from(["password", "token", "sig", "X-Amz-Signature", "client_secret", "Signature"]),
    value=st.text(
        st.characters(codec="ascii", exclude_characters="&#", min_codepoint=33, max_codepoint=126), min_size=6
    ).map(lambda v: quote(v, safe="")),
)
def test_a_signed_url_keeps_its_host_and_path_only(name: str, value: str) -> None:
    found = redact(f"to https://storage.example/b/{'0' * 8}?a={value}x&{name}={value}y here")
    assert found == (
        f"to https://storage.example/b/{'0' * 8}?a={redaction.BLOT}&{name}={redaction.BLOT} here"
    )


@pytest.mark.parametrize(
    "unit",
    [
        "?a=",
        "://a:",
        "a+",
        "a.",
        "a:",
        "token",
        "bearer ",
        "authorization ",
        "eyJaaaaaa.",
        '"',
        "x-amz-",
        "@",
        "a:b@",
        "password='",
    ],
)
def test_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    text = unit * (redaction.MAX_TEXT * 4 // len(unit))
    begin = time.process_time()
    redact(text)
    assert time.process_time() - begin < 2.0


def test_a_secret_is_blotted_out_of_arguments_exceptions_and_stacks(tmp_path: Path) -> None:
    file = tmp_path / "regfs.log"
    set_up(0, file)
    logger = logging.getLogger("regfs.test")
    error = RuntimeError(f"Bearer {SECRET}")
    error.__cause__ = KeyError(f"password={SECRET}")
    logger.error("with %s", f"https://ann:{SECRET}@x/", exc_info=error)
    logger.warning("plain", extra={"password": SECRET}, stack_info=True)
    text = file.read_text()
    assert SECRET not in text
    assert "RuntimeError" in text
    assert "KeyError" in text
    assert "Stack (most recent call last)" in text


def test_a_record_that_cannot_be_formatted_prints_no_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(0, tmp_path / "regfs.log")
    logging.getLogger("regfs.test").warning("%d", SECRET)
    assert SECRET not in capsys.readouterr().err


def test_what_a_registry_says_can_neither_forge_a_line_nor_steer_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "regfs.log"
    set_up(0, file)
    logging.getLogger("regfs.test").warning("said %s", "x\n2026-01-01 ERROR regfs: forged\r\x1b[2J\x9b\u2028")
    (line,) = file.read_text().splitlines()
    assert r"x\n2026" in line
    assert r"\x1b[2J" in line
    assert "\x1b" not in line


def test_the_log_file_is_the_owners_alone_and_follows_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / "regfs.log"
    set_up(0, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    logger = logging.getLogger("regfs.test")
    logger.warning("one")
    file.rename(tmp_path / "regfs.log.1")
    logger.warning("two")
    assert "two" in file.read_text()
    assert "two" not in (tmp_path / "regfs.log.1").read_text()


def test_a_log_file_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the log file .* cannot be written: No such file"):
        set_up(0, tmp_path / "none" / "regfs.log")


@pytest.mark.parametrize(("verbose", "shown"), [(0, "W"), (1, "WI"), (2, "WID"), (3, "WIDL")])
def test_verbosity_goes_from_warnings_to_the_libraries(tmp_path: Path, verbose: int, shown: str) -> None:
    file = tmp_path / "regfs.log"
    set_up(verbose, file)
    ours = logging.getLogger("regfs.test")
    ours.warning("=W")
    ours.info("=I")
    ours.debug("=D")
    logging.getLogger("httpx").info("=L")
    assert "".join(line[-1] for line in file.read_text().splitlines()) == shown


def test_a_second_set_up_replaces_the_first(tmp_path: Path) -> None:
    set_up(0, tmp_path / "a")
    set_up(0, tmp_path / "b")
    logging.getLogger("regfs.test").warning("once")
    assert (tmp_path / "a").read_text() == ""
    assert "once" in (tmp_path / "b").read_text()


def run(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    ).stderr


def test_an_uncaught_error_passes_the_redaction_too() -> None:
    found = run(
        "from regfs.log import set_up\nimport threading\nset_up(0)\n"
        f"def bad(): raise ValueError('password={SECRET}')\n"
        "t = threading.Thread(target=bad); t.start(); t.join()\nbad()"
    )
    assert SECRET not in found
    assert found.count("uncaught error") == 2


def test_under_systemd_lines_bear_their_priority(tmp_path: Path) -> None:
    code = (
        "import os, logging\ns = os.fstat(2)\nos.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'\n"
        "from regfs.log import set_up\nset_up(1)\nlogging.getLogger('regfs').info('up')\n"
        "logging.getLogger('regfs').error('down')"
    )
    assert run(code).splitlines() == ["<6>regfs: up", "<3>regfs: down"]
