"""``python -m regfs.testing``: a registry to try a plugin on. It holds a few images, and ends with Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.harness import SECRET, USER
from regfs.testing.images import make_image, make_index


def main() -> int:
    """Serve until a signal ends it. Violations of what a good client sends are said at the end."""
    parser = argparse.ArgumentParser(prog="python -m regfs.testing", description=__doc__)
    parser.add_argument("--auth", choices=["none", "basic", "bearer"], default="none", help="what it wants")
    parser.add_argument("--key-header", metavar="NAME", help="it wants a key, in this header")
    parser.add_argument(
        "--answer",
        metavar="PATH=FILE",
        type=_answer,
        action="append",
        default=[],
        help="GET of PATH below /v2/ gives the JSON in FILE, as it is at each request; may be given again",
    )
    given = parser.parse_args()
    auth = Auth.KEY if given.key_header else Auth[given.auth.upper()]
    header = given.key_header or Behaviour().key_header
    registry = FakeRegistry(Behaviour(auth=auth, key_header=header, users={USER: SECRET}))
    for path, file in given.answer:
        registry.serve(path, partial(_content, file))
    registry.push("team/app", ["v1", "v2"], make_image("one"))
    registry.push("team/app", "latest", make_index(seed="many"))
    registry.push("team/tools/builder", "2026.1")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    registry.start()
    print(registry.address, flush=True)  # noqa: T201  it is a program
    if auth is not Auth.NONE:
        print(f"user name {USER}, password or key {SECRET}", flush=True)  # noqa: T201  made up, for tests
    ended.wait()
    registry.stop()
    for line in registry.violations:
        print(f"no good client sends this: {line}", file=sys.stderr)  # noqa: T201
    return 1 if registry.violations else 0


def _answer(text: str) -> tuple[str, Path]:
    path, equals, file = text.partition("=")
    if not (path and equals and file):
        raise argparse.ArgumentTypeError("PATH=FILE is wanted, such as _forge/projects=projects.json")
    try:
        _content(Path(file))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{file} holds no JSON: {error}") from error
    return path.removeprefix("/v2").strip("/"), Path(file)


def _content(file: Path) -> object:
    return json.loads(file.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
