"""What every `Provider` has to do, as tests: subclass `ProviderContract` and say what yours claims.

    class TestForgeProvider(ProviderContract):
        addresses = {"https://forge.example/team/app": ("forge.example", "team/app")}
        not_its_own = ("elsewhere.example",)
        malformed = ("forge.example:99999",)

        @pytest.fixture
        def harness(self, tmp_path):
            with FakeRegistry(signed_in()) as registry:
                yield FakeHarness(registry, ForgeProvider(), tmp_path)

The Sources that it gives are for `SourceContract`; here is what holds of a provider whatever they are.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

import pytest
import trio

from regfs.digest import Digest
from regfs.errors import RegfsError
from regfs.manifest import Descriptor
from regfs.ports import (
    BringsCredentials,
    DeletesRepositories,
    DeletesTags,
    Field,
    ListsNamespaces,
    ListsRepositories,
    OAuthServer,
    OffersOAuth,
    Provider,
    RecognisesReplies,
    Recovers,
    Source,
    SpellsPaths,
)
from regfs.reference import is_connection_name
from regfs.testing.contract_capabilities import KINDS
from regfs.testing.contract_tools import blob_of
from regfs.testing.harness import Misleads, ServiceHarness
from regfs.testing.images import Image, make_image
from regfs.testing.quiet import watched

WRITERS: Final[tuple[type, ...]] = (DeletesTags, DeletesRepositories, Recovers)
"""The capabilities that change something."""

_PASSWORD: Final = "a-pass-word-in-an-address"
_DEADLINE: Final = 60.0
_REQUIRED: Final = ("name", "check", "tags", "manifest", "blob", "capability", "aclose")


class ProviderContract:
    """The suite. ``addresses`` are as people type them, each with the address and the rest that it is claimed as;
    ``not_its_own`` are taken at most unsurely; ``malformed`` are refused with a reason; ``repository`` is a name that
    its service can hold."""

    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {}
    not_its_own: ClassVar[Sequence[str]] = ()
    malformed: ClassVar[Sequence[str]] = ()
    repository: ClassVar[str] = "team/app"

    @pytest.fixture
    def harness(self) -> Iterator[ServiceHarness]:
        """An empty service, and a connection to it that is signed in with a secret. Every subclass has its own."""
        raise NotImplementedError("a contract's subclass provides `harness`")

    # ── what it says ─────────────────────────────────────────────────────────────────────────────

    def test_it_says_what_it_is(self, harness: ServiceHarness) -> None:
        provider = harness.provider
        assert provider.name == provider.name.lower()
        assert provider.name.replace("-", "").isalnum()
        assert provider.title.strip() == provider.title != ""
        assert isinstance(provider.default_auth, str)
        assert provider.default_auth
        assert isinstance(provider.many, bool)
        names = [field.name for field in provider.fields if isinstance(field, Field) and field.label]
        assert len(names) == len(provider.fields) == len(set(names))
        assert type(provider)().name == provider.name, "it is made without arguments"

    def test_its_addresses_are_claimed_as_it_says(self, harness: ServiceHarness) -> None:
        assert self.addresses, "the suite needs at least one address that is the provider's own"
        for typed, wanted in self.addresses.items():
            claim = harness.provider.claim(typed)
            assert claim is not None, typed
            assert (claim.address, claim.rest) == wanted, typed
            assert 1 <= claim.confidence <= 100, typed
            assert "\n" not in claim.reason

    def test_what_is_claimed_is_claimed_again_as_the_same(self, harness: ServiceHarness) -> None:
        for typed in self.addresses:
            first = harness.provider.claim(typed)
            assert first is not None
            again = harness.provider.claim(first.address)
            assert again is not None, first.address
            assert (again.address, again.rest) == (first.address, ""), typed
            whole = f"{first.address}/{first.rest}".rstrip("/")
            once_more = harness.provider.claim(whole)
            assert once_more is not None, whole
            assert (once_more.address, once_more.rest) == (first.address, first.rest), whole

    def test_a_path_behind_an_address_is_the_rest_of_its_claim(self, harness: ServiceHarness) -> None:
        """``regfs ls ADDRESS/team/app`` gives the whole; what of it is the registry, its provider says."""
        own = [claim.address for claim in map(harness.provider.claim, self.addresses) if claim is not None]
        for address in (*own, harness.connection.address):
            for rest in (self.repository, f"{self.repository}/v1/digest"):
                for typed in (f"{address}/{rest}", f"{address}/{rest}/"):
                    claim = harness.provider.claim(typed)
                    assert claim is not None, typed
                    assert (claim.address, claim.rest) == (address, rest), typed

    def test_what_is_not_its_own_it_is_not_sure_of(self, harness: ServiceHarness) -> None:
        for address in (*self.not_its_own, "another-kind:/of/address"):
            claim = harness.provider.claim(address)
            assert claim is None or claim.confidence < 100, address

    def test_a_malformed_address_is_refused_with_the_reason(self, harness: ServiceHarness) -> None:
        for address in self.malformed:
            with pytest.raises(ValueError, match=r"\w"):
                harness.provider.claim(address)

    def test_no_address_whatever_makes_it_fail_or_repeat_a_password(self, harness: ServiceHarness) -> None:
        host = next(iter(self.addresses), "host.example").rpartition("://")[2].partition("/")[0]
        odd = [
            "",
            " ",
            "/",
            "://",
            "a b",
            "\0",
            "[",
            "[::1",
            "x:99999",
            "x:y",
            "é.example",
            "a" * 5000,
            "../..",
            "%",
        ]
        odd += [f"tester:{_PASSWORD}@{host}", f"https://tester:{_PASSWORD}@{host}/team/app"]
        for address in odd:
            said = _claimed(harness.provider, address)
            assert said.strip(), address
            assert _PASSWORD not in said, address

    def test_a_path_is_spelled_once_and_its_tag_keeps_its_case(self, harness: ServiceHarness) -> None:
        provider = harness.provider
        if isinstance(provider, SpellsPaths):
            for path in ("", "Team", "Team/App", f"{self.repository}/V1.0-RC"):
                spelled = provider.spelled(path)
                assert provider.spelled(spelled) == spelled, path
                assert spelled.count("/") >= path.count("/"), path
            assert provider.spelled(f"{self.repository}/V1.0-RC").endswith("/V1.0-RC")

    # ── what it asks ─────────────────────────────────────────────────────────────────────────────

    def test_it_asks_nothing_before_somebody_wants_to_know(self, harness: ServiceHarness) -> None:
        provider, connection = harness.provider, harness.connection
        with watched() as asked:
            for typed in self.addresses:
                provider.claim(typed)
            if isinstance(provider, OffersOAuth):
                assert isinstance(provider.oauth(connection), OAuthServer)
            if isinstance(provider, BringsCredentials):
                assert all(source.name for source in provider.credential_sources(connection))
            if isinstance(provider, RecognisesReplies):
                provider.recognise(connection.address, 404, {})

            async def body() -> None:
                for read_only in (True, False):
                    tools = harness.tools(read_only=read_only)
                    for source in (await provider.registries(connection, tools)).values():
                        assert source.name
                        for kind in KINDS:
                            source.capability(kind, self.repository)
                        await source.aclose()

            _run(body)
        assert asked == []
        assert harness.requests() == 0

    def test_a_reply_that_is_nothing_special_is_nobodys(self, harness: ServiceHarness) -> None:
        provider = harness.provider
        if isinstance(provider, RecognisesReplies):
            for status, headers in ((200, {}), (404, {}), (401, {"www-authenticate": 'Basic realm="x"'})):
                assert provider.recognise("host.example", status, headers) is None
            assert provider.recognise("host.example", 401, {"www-authenticate": '\udcff, ,=,"' * 50}) is None

    def test_its_registries_are_sources_under_names_of_folders(self, harness: ServiceHarness) -> None:
        async def body() -> None:
            sources = await harness.provider.registries(harness.connection, harness.tools())
            assert sources
            assert len(sources) > 1 or "" in sources
            for folder, source in sources.items():
                assert folder == "" or is_connection_name(folder)
                assert [name for name in _REQUIRED if not hasattr(source, name)] == []
                assert "://" not in source.name
                await source.aclose()

        _run(body)

    # ── what it hands out ────────────────────────────────────────────────────────────────────────

    def test_the_capabilities_are_those_declared(self, harness: ServiceHarness) -> None:
        declared = set(getattr(harness.provider, "capabilities", ()))
        assert declared <= set(KINDS)

        async def body(source: Source) -> None:
            handed = {kind for kind in KINDS if source.capability(kind, self.repository) is not None}
            assert handed == declared
            for kind in handed:
                assert isinstance(source.capability(kind, self.repository), kind), kind
            assert source.capability(ProviderContract) is None

        _with(harness, body)

    def test_read_only_it_hands_out_nothing_that_writes(self, harness: ServiceHarness) -> None:
        async def body(source: Source) -> None:
            for kind in WRITERS:
                assert source.capability(kind, self.repository) is None, kind
            reads = set(getattr(harness.provider, "capabilities", ())) - set(WRITERS)
            assert {kind for kind in KINDS if source.capability(kind, self.repository) is not None} == reads

        _with(harness, body, read_only=True)

    def test_what_was_pushed_is_read_through_its_connection(self, harness: ServiceHarness) -> None:
        image = self._push(harness)

        async def body(source: Source) -> None:
            names = [name async for page in source.tags(self.repository) for name in page.names]
            assert sorted(names) == ["v1", "v2"]
            assert (await source.manifest(self.repository, "v1")).raw == image.manifest.raw
            blob = image.layers[0]
            assert await blob_of(source, self.repository, blob.descriptor) == blob.raw

        for read_only in (False, True):
            _with(harness, body, read_only=read_only)

    # ── secrets ──────────────────────────────────────────────────────────────────────────────────

    def test_no_secret_shows_in_what_it_says_raises_or_logs(
        self, harness: ServiceHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        self._push(harness)

        async def body(source: Source) -> None:
            secrets = await _secrets(harness)
            said = await self._said(source)
            said.extend(
                map(repr, (source, vars(source) if hasattr(source, "__dict__") else "", harness.provider))
            )
            said.append(caplog.text)
            for secret in secrets:
                assert secret not in "\n".join(said)

        _with(harness, body)

    def test_credentials_stay_on_their_host_and_whatever_leads_astray_comes_to_an_end(
        self, harness: ServiceHarness
    ) -> None:
        if not isinstance(harness, Misleads):
            return
        self._push(harness)

        async def body(source: Source) -> None:
            before, secrets = harness.requests(), await _secrets(harness)
            said = await self._said(source)
            assert not any(secret in text for secret in secrets for text in said)
            assert harness.requests() > before, "nothing was asked: the test shows nothing"

        for name, lead in harness.ways().items():
            lead()
            try:
                _with(harness, body)
            except trio.TooSlowError:
                raise AssertionError(f"{name}: it does not come to an end") from None
            assert list(harness.astray()) == [], name

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    def _push(self, harness: ServiceHarness) -> Image:
        image = make_image()
        harness.push(self.repository, ["v1", "v2"], image)
        return image

    async def _said(self, source: Source) -> list[str]:
        """The errors of all that can be read, whole. AssertionError for one that is not regfs's own."""
        said: list[str] = []
        for name, act in self._acts(source).items():
            try:
                await act()
            except RegfsError as error:
                said.append(_whole(error))
            except Exception as error:
                raise AssertionError(f"{name} raises what is no error of regfs: {error!r}") from error
        return said

    def _acts(self, source: Source) -> dict[str, Callable[[], Awaitable[object]]]:
        """All that can be read, each of which may fail."""
        absent = Descriptor("application/octet-stream", Digest("sha256", "1" * 64), 10)
        layer = make_image().layers[0].descriptor

        async def tags() -> object:
            return [page async for page in source.tags(self.repository)]

        async def repositories() -> object:
            lists = source.capability(ListsRepositories)
            return [page async for page in lists.repositories()] if lists is not None else None

        async def namespaces() -> object:
            lists = source.capability(ListsNamespaces)
            return [page async for page in lists.namespace("")] if lists is not None else None

        return {
            "check": source.check,
            "tags": tags,
            "repositories": repositories,
            "namespaces": namespaces,
            "manifest": lambda: source.manifest(self.repository, "v1"),
            "an absent manifest": lambda: source.manifest(self.repository, "absent"),
            "blob": lambda: blob_of(source, self.repository, layer),
            "an absent blob": lambda: blob_of(source, self.repository, absent),
        }


def _claimed(provider: Provider, address: str) -> str:
    """What a claim says: itself, or the reason of the ValueError that it raises. Never empty where all is well."""
    try:
        return repr(provider.claim(address))
    except ValueError as error:
        return str(error)


def _whole(error: BaseException) -> str:
    """Everything that an exception can show, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error)


async def _secrets(harness: ServiceHarness) -> list[str]:
    keychain = harness.tools().keychain
    credential = await keychain.get(harness.connection) if keychain is not None else None
    return [credential.secret] if credential is not None else []


def _with(
    harness: ServiceHarness, body: Callable[[Source], Awaitable[None]], *, read_only: bool = False
) -> None:
    async def inner() -> None:
        async with harness.open(read_only=read_only) as source:
            await body(source)

    _run(inner)


def _run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(_DEADLINE):
            await body()

    trio.run(main)
