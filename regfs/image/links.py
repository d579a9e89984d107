"""Where the symbolic links of an image lead: inside it."""

from __future__ import annotations


def contained(path: bytes) -> list[bytes]:
    """The components of a member's path, with each ``..`` taken back lexically; at the root it leads nowhere.

    As umoci does (``CleanPath``), and path/filepath's ``Clean`` of a rooted path.
    """
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def clamped(target: bytes, depth: int) -> bytes:
    """The target of a link that lies ``depth`` folders deep, so that following it ends inside the root.

    One that can't leave is shown as it is. An absolute one becomes relative to the link's folder; a ``..`` that would
    climb beyond the root is dropped; one behind a name is taken back with that name, since the name may be a link itself.
    """
    if _stays_inside(target, depth):
        return target
    here = 0 if target.startswith(b"/") else depth
    up = depth - here
    names: list[bytes] = []
    for part in target.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            names.append(part)
        elif names:
            names.pop()
        elif here > 0:
            here -= 1
            up += 1
    slash = b"/" if names and target.endswith(b"/") else b""
    return b"/".join([b".."] * up + names) + slash or b"."


def _stays_inside(target: bytes, depth: int) -> bool:
    """Whether it is relative, and climbs at its beginning only, and not beyond the root."""
    if target.startswith(b"/"):
        return False
    climbed, named = 0, False
    for part in target.split(b"/"):
        if part == b"..":
            if named:
                return False
            climbed += 1
        elif part not in (b"", b"."):
            named = True
    return climbed <= depth
