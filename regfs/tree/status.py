"""What a mount says about a registry in ``.regfs/status.json`` and ``.regfs/metrics``."""

from __future__ import annotations

from collections.abc import Mapping

from regfs.ports import Counts
from regfs.tree.quota import quota_of
from regfs.tree.registry import Registry


def describe(registry: Registry, facts: Mapping[str, object]) -> dict[str, object]:
    """A registry's state, as JSON; ``facts``: how it is signed in to."""
    return {
        "name": registry.name,
        "address": registry.connection.address,
        "reference": registry.source.name,
        "provider": registry.connection.provider,
        **facts,
        "partial": dict(registry.partial),
        "dropped_names": registry.tags.dropped + registry.catalog.dropped,
        "dropped_referrers": registry.referrers.dropped,
        "quota": quota_of(registry.source),
        "counters": counters(registry),
    }


def counters(registry: Registry) -> dict[str, int]:
    """What was asked of a registry since the mount came up, by kind."""
    counts = registry.source.capability(Counts)
    return dict(counts.counters()) if counts is not None else {}
