"""What is left in a repository once its ordinary tags were deleted here: tags that clients keep for themselves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def left_behind(registry: str, repository: str, tags: Sequence[str]) -> str:
    """The line that says so, and how to see and delete them."""
    count = len(tags)
    what = (
        "one tag that clients keep for themselves is"
        if count == 1
        else f"{count} tags that clients keep for themselves are"
    )
    place = shlex.quote(f"{registry}/{repository}")
    return (
        f"{what} left in the registry (signatures, lists of what refers to an image): {tags[0]}"
        f"{' …' if count > 1 else ''} → See them with `regfs ls {place}`, or in a mount with -o show_fallback_tags; delete "
        f"one by its name with `regfs rm {place}:TAG`, or all with `rm -r` in such a mount."
    )
