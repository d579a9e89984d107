"""Generated images: few names, so that layers meet each other."""

from __future__ import annotations

from hypothesis import strategies as st

from regfs.image.members import MemberKind
from tests.support.archives import Item

NAMES = [b"a", b"b", b"c", b"\xff\xfe", "é".encode()]

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
targets = st.one_of(
    paths,
    paths.map(lambda p: b"/" + p),
    paths.map(lambda p: b"../" + p),
    st.sampled_from([b"..", b"/", b".", b"../../../..", b"a/../../b"]),
)
xattrs = st.dictionaries(
    st.sampled_from([b"user.x", b"user.y"]), st.sampled_from([b"1", b"zwei"]), max_size=2
)
modes = st.sampled_from([0o644, 0o600, 0o4755, 0o1777, 0o2750, 0o000])


@st.composite
def items(draw: st.DrawFn) -> Item:
    path = draw(paths)
    what = draw(
        st.sampled_from(
            ["file", "file", "file", "folder", "folder", "link", "hard", "hard", "fifo", "wh", "wh", "opq"]
        )
    )
    parent, _, name = path.rpartition(b"/")
    prefix = parent + b"/" if parent else b""
    mode = draw(modes)
    if what == "wh":
        return Item(prefix + b".wh." + name)
    if what == "opq":
        return Item(prefix + b".wh..wh..opq")
    if what == "link":
        return Item(path, MemberKind.LINK, target=draw(targets), mode=0o777)
    if what == "hard":
        return Item(path, MemberKind.HARD_LINK, target=draw(paths))
    if what == "fifo":
        return Item(path, MemberKind.FIFO, mode=mode)
    times = st.integers(1_000_000_000, 1_000_000_100)
    return Item(
        path,
        MemberKind.FILE if what == "file" else MemberKind.FOLDER,
        draw(st.binary(max_size=4)) if what == "file" else b"",
        # What is made on the way within a set-group-ID folder is the kernel's matter, not the archive's.
        mode=mode if what == "file" else mode & ~0o2000,
        uid=draw(st.sampled_from([0, 1000])),
        gid=draw(st.sampled_from([0, 50])),
        mtime=draw(times),
        xattrs=draw(xattrs),
    )


layers = st.lists(st.lists(items(), max_size=8), min_size=1, max_size=5)
