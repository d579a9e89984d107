"""regfs mounts container registries as a filesystem."""

__version__ = "0.1.0"
