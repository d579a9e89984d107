"""Which inode stands for which node, and how often the kernel has looked it up."""

from __future__ import annotations

from collections.abc import Iterable

from regfs.tree.nodes import Node

ROOT = 1


class Inodes:
    """Numbers nodes in the order in which they are shown, and lets them go when the kernel does.

    A node stays while the kernel counts lookups of it, or while a child of it stays. The root stays always.
    """

    def __init__(self, root: Node) -> None:
        self._nodes: dict[int, Node] = {}
        self._next = ROOT + 1
        self.set_root(root)

    def set_root(self, root: Node) -> None:
        """Make ``root`` inode 1."""
        root.ino = ROOT
        self._nodes[ROOT] = root

    def __getitem__(self, ino: int) -> Node:
        return self._nodes[ino]

    def __len__(self) -> int:
        return len(self._nodes)

    def nodes(self) -> Iterable[Node]:
        """All nodes that have a number the kernel may use."""
        return list(self._nodes.values())

    def number(self, node: Node) -> int:
        """The node's inode: given once, never used again for another."""
        if node.ino == 0:
            node.ino = self._next
            self._next += 1
        self._nodes.setdefault(node.ino, node)
        return node.ino

    def remember(self, node: Node) -> None:
        """One lookup more. The node is its parent's child again if it had been dropped while it was being found."""
        if node.ino not in self._nodes:
            self.number(node)
        node.lookups += 1
        parent = node.parent
        if parent is not None and (parent.children is None or node.key not in parent.children):
            parent.child(node.key, lambda: node)

    def forget(self, ino: int, lookups: int) -> None:
        """Take ``lookups`` back."""
        node = self._nodes.get(ino)
        if node is not None:
            node.lookups = max(0, node.lookups - lookups)
            self.drop_if_unused(node)

    def drop_if_unused(self, node: Node) -> None:
        """Let go a node that neither the kernel nor a child needs, and its parents likewise."""
        current: Node | None = node
        while current is not None and current.lookups <= 0 and not current.children and current.ino != ROOT:
            self._nodes.pop(current.ino, None)
            parent = current.parent
            if (
                parent is not None
                and parent.children is not None
                and parent.children.get(current.key) is current
            ):
                del parent.children[current.key]
            current = parent
