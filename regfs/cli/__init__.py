"""The command line: one module a command, imported only when that command runs.

`main` is the entry point of the ``regfs`` script and of ``python -m regfs``.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that ``sys.argv`` names, and exit with its code (docs/commands.md, "Exit codes")."""
    from regfs.cli.edge import run

    sys.exit(run(sys.argv[1:]))
