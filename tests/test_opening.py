"""What opening a connection leaves behind for advice: the options of the `regfs login` that would make it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regfs.connection import Connection
from regfs.opening import login_options


@pytest.mark.parametrize(
    ("connection", "options"),
    [
        (Connection("r", "reg.example"), []),
        (Connection("r", "reg.example", auth="anonymous"), []),
        (Connection("r", "oci:/srv/images", provider="oci", auth="anonymous"), []),
        (Connection("r", "ghcr.io", provider="ghcr"), []),
        (Connection("r", "ghcr.io"), ["--provider", "generic"]),
        (Connection("r", "reg.example", provider="gitlab"), ["--provider", "gitlab"]),
        (Connection("r", "reg.example", auth="basic"), ["--auth", "basic"]),
        (Connection("r", "reg.example", insecure=True), ["--insecure"]),
        (Connection("r", "reg.example", ca=Path("/my/ca.pem")), ["--ca", "/my/ca.pem"]),
    ],
)
def test_the_options_are_those_that_the_address_does_not_say(connection: Connection, options: Any) -> None:
    assert login_options(connection) == options
