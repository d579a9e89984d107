"""The rooms of a manifest, put where its folder finds them: one line for each.

What is in them is imported when the first is entered: most mounts are looked at for their manifests.
"""

from __future__ import annotations

from regfs.manifest import Manifest
from regfs.tree.nodes import Node
from regfs.tree.registry import Registry
from regfs.tree.tagfolder import ROOMS, ManifestFolder, Room


def furnish() -> None:
    """Let manifests' folders have them."""
    ROOMS["layers"] = Room(_layers, has_layers)
    ROOMS["rootfs"] = Room(_rootfs, has_rootfs)
    ROOMS["referrers"] = Room(_referrers, lambda _registry, _manifest: True)
    ROOMS["oci"] = Room(_oci, lambda _registry, _manifest: True)


def has_layers(registry: Registry, manifest: Manifest) -> bool:
    """Say whether a manifest has layers, of an index whether the host's platform is in it. Asks nothing."""
    return registry.contents.has_config(manifest) if manifest.is_index else bool(manifest.layers)


def has_rootfs(registry: Registry, manifest: Manifest) -> bool:
    """Say whether a manifest has a root file tree, of an index whether the host's platform is in it. Asks nothing."""
    if registry.images is None:
        return False
    return registry.contents.has_config(manifest) if manifest.is_index else manifest.is_image


def _layers(parent: ManifestFolder, name: str, manifest: Manifest) -> Node:
    from regfs.tree.layers import LayersFolder

    return LayersFolder(parent, name, manifest)


def _rootfs(parent: ManifestFolder, name: str, manifest: Manifest) -> Node:
    from regfs.tree.rootfs import RootfsFolder

    return RootfsFolder(parent, name, manifest)


def _referrers(parent: ManifestFolder, name: str, manifest: Manifest) -> Node:
    from regfs.tree.referrers import ReferrersFolder

    return ReferrersFolder(parent, name, manifest)


def _oci(parent: ManifestFolder, name: str, manifest: Manifest) -> Node:
    from regfs.tree.ocidir import OciFolder

    return OciFolder(parent, name, manifest)
