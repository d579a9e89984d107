"""A keyring backend that keeps plain text in a file, as some do."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend


class PlaintextKeyring(KeyringBackend):
    """Works, and must not be used."""

    priority = 9

    @property
    def _path(self) -> Path:
        return Path(os.environ["HOME"]) / "plain.json"

    def get_password(self, service: str, username: str) -> str | None:
        """What was kept."""
        kept: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return kept.get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep it, for all to see."""
        self._path.write_text(json.dumps({f"{service}/{username}": password}))
