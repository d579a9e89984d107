"""`cat TAG/manifest.json`: on a fresh mount beside `skopeo inspect --raw`, and again beside `cat` on tmpfs."""

from __future__ import annotations

from benchmarks.harness import Row, at_most_times, faster, in_turn, within
from benchmarks.stage import ROUND_TRIP, Stage, example_image, skopeo_inspect

TITLE = "One manifest"
REPOSITORY, TAG = "team/app", "v1"
ROUNDS = 60
WARM_ROUNDS = 200


def measure(stage: Stage) -> list[Row]:
    """Cold on loopback, cold behind the slow road, warm."""
    registry = stage.registry("cat")
    registry.lay_image(REPOSITORY, example_image(), [TAG])
    near, far = registry.port, stage.slow_road(registry.port)
    return [_cold_near(stage, near), *_cold_far(stage, far), _warm(stage, near)]


def _cold_near(stage: Stage, port: int) -> Row:
    ours, beside = in_turn(ROUNDS, lambda: cold_cat(stage, port), lambda: inspect(stage, port))
    return faster("`cat` cold, loopback, beside `skopeo inspect --raw`", ours, beside, 3)


def _cold_far(stage: Stage, port: int) -> list[Row]:
    ours, beside = in_turn(ROUNDS, lambda: cold_cat(stage, port), lambda: inspect(stage, port))
    return [
        within("`cat` cold, behind 20 ms", ours, ROUND_TRIP + 0.008, "one round trip + 8 ms"),
        faster("`cat` cold, behind 20 ms, beside `skopeo inspect --raw`", ours, beside, 2.5),
    ]


def _warm(stage: Stage, port: int) -> Row:
    with stage.mount(port) as mount:
        file = mount.path / REPOSITORY / TAG / "manifest.json"
        copy = stage.memory / "manifest.json"
        copy.write_bytes(file.read_bytes())
        ours, beside = in_turn(WARM_ROUNDS, lambda: stage.run("cat", file), lambda: stage.run("cat", copy))
    return at_most_times("`cat` warm, beside `cat` on tmpfs", ours, beside, 2)


def cold_cat(stage: Stage, port: int) -> float:
    """The first `cat` on a fresh mount."""
    with stage.mount(port) as mount:
        return stage.run("cat", mount.path / REPOSITORY / TAG / "manifest.json")


def inspect(stage: Stage, port: int) -> float:
    """What skopeo takes for the same bytes."""
    return stage.run(*skopeo_inspect(port, REPOSITORY, TAG))
