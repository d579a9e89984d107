"""The rooms of a manifest, put where its folder finds them: one line for each."""

from __future__ import annotations

from regfs.tree.layers import LayersFolder, has_layers
from regfs.tree.ocidir import OciFolder
from regfs.tree.referrers import ReferrersFolder
from regfs.tree.rootfs import RootfsFolder, has_rootfs
from regfs.tree.tagfolder import ROOMS, Room


def furnish() -> None:
    """Let manifests' folders have them."""
    ROOMS["layers"] = Room(LayersFolder, has_layers)
    ROOMS["rootfs"] = Room(RootfsFolder, has_rootfs)
    ROOMS["referrers"] = Room(ReferrersFolder, lambda _registry, _manifest: True)
    ROOMS["oci"] = Room(OciFolder, lambda _registry, _manifest: True)
