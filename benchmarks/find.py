"""`find -name manifest.json` over 200 repositories of 5 tags, behind the slow road."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Row, Sample, faster, in_turn
from benchmarks.stage import Stage, curl, example_image, skopeo_inspect

TITLE = "A walk over 200 repositories of 5 tags, behind 20 ms"
REPOSITORIES = [f"team/app-{number:03d}" for number in range(200)]
TAGS = [f"v{number}" for number in range(1, 6)]
SAMPLED = 100
ROUNDS = 3


def measure(stage: Stage) -> list[Row]:
    """Beside one skopeo for each manifest, and beside curl with the same requests one after another."""
    registry = stage.registry("find")
    registry.lay_repositories(REPOSITORIES, example_image(), TAGS)
    port = stage.slow_road(registry.port)
    same = curl(port, *_requests())
    found, inspected, one_by_one = in_turn(
        ROUNDS, lambda: cold_find(stage, port), lambda: _inspect_some(stage, port), lambda: stage.run(*same)
    )
    of_all = _scaled(inspected, len(REPOSITORIES) * len(TAGS) / SAMPLED)
    return [
        faster(f"`find`, beside `skopeo inspect --raw` of each ({SAMPLED} sampled, × 10)", found, of_all, 10),
        faster("`find`, beside `curl` with the same 1,201 requests one after another", found, one_by_one, 4),
    ]


def cold_find(stage: Stage, port: int) -> float:
    """The first `find` on a fresh mount."""
    with stage.mount(port) as mount:
        return stage.run("find", mount.path, "-name", "manifest.json")


def _inspect_some(stage: Stage, port: int) -> float:
    each = len(REPOSITORIES) * len(TAGS) // SAMPLED
    return sum(
        stage.run(*skopeo_inspect(port, repository, tag))
        for number, (repository, tag) in enumerate((r, t) for r in REPOSITORIES for t in TAGS)
        if number % each == 0
    )


def _requests() -> Iterator[str]:
    yield "/v2/_catalog?n=1000"
    for repository in REPOSITORIES:
        yield f"/v2/{repository}/tags/list?n=1000"
        yield from (f"/v2/{repository}/manifests/{tag}" for tag in TAGS)


def _scaled(sample: Sample, factor: float) -> Sample:
    return Sample(tuple(seconds * factor for seconds in sample.seconds))
