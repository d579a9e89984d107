"""What a good client says in every request."""

from __future__ import annotations

from typing import Final

from regfs.manifest import ACCEPT

HEADERS: Final = {"Accept": ACCEPT, "Accept-Encoding": "identity", "User-Agent": "regfs-tests"}
