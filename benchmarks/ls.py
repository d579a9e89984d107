"""`ls` of 10,000 tags: on a fresh mount beside `curl` of the same pages, and again beside `ls` on tmpfs."""

from __future__ import annotations

from benchmarks.harness import Row, at_most_over, at_most_times, in_turn
from benchmarks.pages import REPOSITORY, TAGS_PATH, page_target, tag_name
from benchmarks.stage import Stage, curl, example_image

TITLE = "10,000 tags"
TAGS, PAGE = 10_000, 1_000
ROUNDS = 15


def measure(stage: Stage) -> list[Row]:
    """Docker's registry gives all tags in one page; another one gives them in ten."""
    registry = stage.registry("ls")
    image = example_image()
    registry.lay_image(REPOSITORY, image)
    registry.lay_tags(REPOSITORY, image.digest, map(tag_name, range(TAGS)))
    return [_cold_near(stage, registry.port), _cold_far(stage), _warm(stage, registry.port)]


def _cold_near(stage: Stage, port: int) -> Row:
    same = curl(port, TAGS_PATH)
    ours, beside = in_turn(ROUNDS, lambda: cold_ls(stage, port), lambda: stage.run(*same))
    return at_most_over("`ls` cold, loopback, one page, beside `curl`", ours, beside, 0.150)


def _cold_far(stage: Stage) -> Row:
    port = stage.slow_road(stage.pages(TAGS, PAGE))
    same = curl(port, *(page_target(number, PAGE) for number in range(TAGS // PAGE)))
    ours, beside = in_turn(ROUNDS, lambda: cold_ls(stage, port), lambda: stage.run(*same))
    return at_most_times("`ls` cold, behind 20 ms, ten pages, beside `curl`", ours, beside, 1.3)


def _warm(stage: Stage, port: int) -> Row:
    twin = stage.memory / "tags"
    for number in range(TAGS):
        (twin / tag_name(number)).mkdir(parents=True)
    with stage.mount(port) as mount:
        folder = mount.path / REPOSITORY
        stage.run("ls", "-l", folder)
        ours, beside = in_turn(
            ROUNDS, lambda: stage.run("ls", "-l", folder), lambda: stage.run("ls", "-l", twin)
        )
    return at_most_times("`ls -l` warm, beside `ls -l` on tmpfs", ours, beside, 3)


def cold_ls(stage: Stage, port: int) -> float:
    """The first `ls` on a fresh mount."""
    with stage.mount(port) as mount:
        return stage.run("ls", mount.path / REPOSITORY)
