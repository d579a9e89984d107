"""Deleting one tag on GitHub's registry, whose API deletes digests with all their tags."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from regfs.connection import Connection
from regfs.errors import (
    Forbidden,
    Moved,
    Refused,
    RegfsError,
)
from regfs.opening import open_registries
from regfs.ports import (
    DeletesTags,
    HttpPolicy,
    Recovers,
    Source,
)
from regfs.registry.journal import Entry, Journal
from regfs.registry.throwaway import throw_away_index
from regfs.testing.images import make_image, make_index
from regfs.testing.store import Stored
from tests.support.fake_github import FakeGitHub
from tests.support.ghcr_source import APP, Keychain, Setting, scopes

# ── deleting one tag ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", [make_image(), make_index(attestations=True)], ids=["image", "index"])
@pytest.mark.parametrize("repository", [APP, "octocat/deep/er/app"])
def test_one_of_two_tags_goes_and_its_sibling_and_their_digest_live(
    fake: FakeGitHub, setting: Setting, what: object, repository: str
) -> None:
    fake.push(repository, ["v1", "v2"], what)  # type: ignore[arg-type]
    before = fake.tags(repository)
    assert setting.delete("v1", repository, seen=before["v1"]) == "a throw-away index"
    assert fake.tags(repository) == {"v2": before["v2"]}
    assert fake.registry.store.find(repository, before["v2"]) is not None
    assert setting.entries() == []
    assert not [record for record in fake.registry.writes() if record.method != "PUT"]
    (deletion,) = [call for call in fake.calls if call.startswith("DELETE")]
    assert deletion.rpartition("/")[0].endswith("/versions")


def test_the_only_tag_of_a_digest_goes_and_the_digest_stays(fake: FakeGitHub, setting: Setting) -> None:
    image = fake.push(APP, ["v1"])
    fake.push(APP, ["v2"], make_image("other"))
    setting.delete("v1")
    assert set(fake.tags(APP)) == {"v2"}
    assert fake.registry.store.find(APP, image.digest) is not None


def test_a_packages_last_tag_is_refused_before_anything_is_written(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.push(APP, ["v1"])
    before = fake.tags(APP)
    with pytest.raises(Refused, match="last tag"):
        setting.delete("v1")
    assert fake.tags(APP) == before
    assert fake.registry.writes() == []


@pytest.mark.parametrize(
    "reason",
    [
        "You cannot delete the last tagged version of a package. You must delete the package instead.",
        "Publicly visible package versions with more than 5000 downloads cannot be deleted.",
    ],
)
def test_what_github_will_not_delete_is_put_back_and_its_reason_is_given(
    fake: FakeGitHub, setting: Setting, reason: str
) -> None:
    fake.push(APP, ["v1", "v2"])
    before = fake.tags(APP)
    fake.refuse_deletions = reason
    with pytest.raises(Refused) as caught:
        setting.delete("v1")
    assert reason.partition(" ")[0] in str(caught.value)
    assert fake.tags(APP) == before
    assert setting.entries() == []


@pytest.mark.parametrize("missing", ["write:packages", "delete:packages"])
def test_a_token_that_may_not_is_told_the_scope_that_it_lacks_and_nothing_is_written(
    fake: FakeGitHub, setting: Setting, missing: str
) -> None:
    fake.push(APP, ["v1", "v2"])
    has = scopes("read:packages", "write:packages", "delete:packages") - {missing}
    fake.github.tokens["ghp_good"].scopes = has
    with pytest.raises(Forbidden, match=f"lacks the scope {missing}"):
        setting.delete("v1")
    assert fake.registry.writes() == []
    assert setting.entries() == []


def test_a_version_that_got_another_tag_meanwhile_is_not_deleted(fake: FakeGitHub, setting: Setting) -> None:
    fake.push(APP, ["v1", "v2"])
    before = fake.tags(APP)
    put = fake.registry.store.put

    def also_tagged(repository: str, tag: str | None, digest: object, stored: object) -> None:
        put(repository, tag, digest, stored)  # type: ignore[arg-type]
        if tag == "v1" and digest != before["v1"]:
            put(repository, "somebodys", digest, stored)  # type: ignore[arg-type]

    fake.registry.store.put = also_tagged  # type: ignore[method-assign]
    with pytest.raises(Refused, match="somebodys"):
        setting.delete("v1")
    assert fake.tags(APP)["v1"] == before["v1"]
    assert "somebodys" in fake.tags(APP)
    assert not [call for call in fake.calls if call.startswith("DELETE")]


def test_a_version_that_the_api_lists_a_moment_later_is_waited_for(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.push(APP, ["v1", "v2"])
    fake.lag = 2
    setting.delete("v1")
    assert set(fake.tags(APP)) == {"v2"}


def test_one_that_the_api_never_lists_is_put_back(fake: FakeGitHub, setting: Setting) -> None:
    fake.push(APP, ["v1", "v2"])
    before = fake.tags(APP)
    fake.lag = 1000
    with pytest.raises(RegfsError, match="does not list"):
        setting.delete("v1")
    assert fake.tags(APP) == before


def test_a_tag_that_moved_is_left_alone(fake: FakeGitHub, setting: Setting) -> None:
    old = fake.push(APP, ["v1", "v2"])
    fake.push(APP, ["v1"], make_image("new"))
    before = fake.tags(APP)
    with pytest.raises(Moved):
        setting.delete("v1", seen=old.digest)
    assert fake.tags(APP) == before


def test_a_throw_away_that_another_daemon_left_among_many_versions_is_found_and_deleted(
    fake: FakeGitHub, setting: Setting
) -> None:
    fake.push(APP, ["v1", "v2"])
    before = fake.tags(APP)
    # As a killed daemon leaves it: the journal's entry, and the throw-away on the tag.
    found = fake.registry.store.find(APP, "v1")
    assert found is not None
    throw_away = throw_away_index("a mark")
    journal = Journal(setting.state)
    entry = Entry(fake.address, APP, "v1", found[1].raw, found[1].media_type, str(found[0]), throw_away)
    journal.record(entry)
    journal.release(entry)
    fake.registry.store.put(
        APP, "v1", entry.throw_away_digest, Stored(throw_away, "application/vnd.oci.image.index.v1+json")
    )
    for number in range(130):
        fake.push(APP, [f"later-{number}"], make_image(f"later {number}"))
    assert "finished" in setting.recover()[0]
    assert "v1" not in fake.tags(APP)
    assert fake.tags(APP)["v2"] == before["v2"]
    assert setting.recover() == []


def test_native_forbids_the_only_way_there_is(fake: FakeGitHub, tmp_path: Path) -> None:
    fake.push(APP, ["v1", "v2"])
    options = (("api", fake.api),)
    connection = Connection("r", fake.address, "ghcr", options=options, tag_delete="native")

    async def main() -> None:
        opened = await open_registries(connection, Keychain("ghp_good"), HttpPolicy("t"), tmp_path)
        deletes = opened[""].capability(DeletesTags, APP)
        assert deletes is not None
        with pytest.raises(Refused, match="tag_delete"):
            await deletes.delete_tag(APP, "v1", None)
        await opened[""].aclose()

    trio.run(main)
    assert fake.registry.writes() == []


def test_a_read_only_mount_has_nothing_that_deletes(fake: FakeGitHub, setting: Setting) -> None:
    setting.read_only = True

    async def body(source: Source) -> None:
        assert source.capability(DeletesTags, APP) is None
        assert source.capability(Recovers) is None

    setting.run(body)
    assert fake.calls == []
