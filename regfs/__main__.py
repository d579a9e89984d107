"""``python -m regfs``: the same as the ``regfs`` command."""

from __future__ import annotations

from regfs.cli import main

if __name__ == "__main__":
    main()
