"""The contract of a provider, on ours that need no service of their own; and providers with a fault each, which it finds."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

import httpx
import pytest

from regfs.connection import Connection
from regfs.errors import NotFound
from regfs.manifest import ACCEPT
from regfs.ports import (
    Claim,
    Counts,
    DatesTags,
    OAuthServer,
    RawManifest,
    Source,
    TagPage,
    Tools,
)
from regfs.providers.generic import GenericProvider
from regfs.providers.oci import OciLayoutProvider
from regfs.registry.v2 import V2Source
from regfs.testing import contract_provider
from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.contract_provider import ProviderContract
from regfs.testing.fake import FakeRegistry
from regfs.testing.harness import SECRET, USER, ConnectionHarness, FakeHarness, ServiceHarness, signed_in
from regfs.testing.images import Pushable, write_layout
from tests.providers.documented import example
from tests.testing.planted import failures

C = TypeVar("C")


class OnFake(ProviderContract):
    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {
        "localhost:5000": ("localhost:5000", ""),
        "https://Registry.Example:443/team/app/": ("registry.example", "team/app"),
        "http://registry.example": ("registry.example:80", ""),
        "[::1]:5000/app": ("[::1]:5000", "app"),
    }
    malformed = ("", "a b", "host:99999", "tester:secret@host")

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[ServiceHarness]:
        with FakeRegistry(signed_in()) as registry:
            yield FakeHarness(registry, GenericProvider(), tmp_path)


class TestGenericProviderWithTokens(OnFake):
    pass


class TestGenericProviderWithAPassword(OnFake):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[ServiceHarness]:
        with FakeRegistry(signed_in(Behaviour(auth=Auth.BASIC))) as registry:
            yield FakeHarness(registry, GenericProvider(), tmp_path)


class LayoutsHarness(ConnectionHarness):
    def push(self, repository: str, tags: object, what: Pushable) -> None:
        write_layout(self.folder / "layouts" / repository, dict.fromkeys(tags, what))  # type: ignore[call-overload]


class TestOciLayoutProvider(ProviderContract):
    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {"oci:/srv/none/such": ("oci:/srv", "none/such")}
    not_its_own = ("localhost:5000", "oci:5000")
    malformed = ("oci:", "oci:a\0b")

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ServiceHarness:
        (tmp_path / "layouts").mkdir()
        return LayoutsHarness(OciLayoutProvider(), f"oci:{tmp_path / 'layouts'}", tmp_path)


class TestTheShelfOfTheDocumentation(ProviderContract):
    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {"shelf:/srv/x.shelf/": ("shelf:/srv/x.shelf", "")}
    not_its_own = ("localhost:5000",)

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ServiceHarness:
        (tmp_path / "my.shelf").mkdir()
        harness: ServiceHarness = example("harness").ShelfHarness(
            example("shelf").ShelfProvider(), f"shelf:{tmp_path}/my.shelf", tmp_path
        )
        return harness


# ── providers with a fault ───────────────────────────────────────────────────────────────────────


class Broken(GenericProvider):
    """The generic provider with one fault."""

    fault = ""

    def __init__(self) -> None:
        self.asked = 0
        if self.fault == "declares what it does not hand out":
            self.capabilities = (*self.capabilities, DatesTags)
        if self.fault == "hands out what it does not declare":
            self.capabilities = tuple(kind for kind in self.capabilities if kind is not Counts)
        if self.fault == "its name is no word":
            self.name = "A Name"

    def __repr__(self) -> str:
        return f"Broken({SECRET if self.fault == 'a secret in a repr' else ''})"

    def claim(self, address: str) -> Claim | None:
        match self.fault:
            case "asks for a name when it claims":
                socket.getaddrinfo("127.0.0.1", 1)
            case "takes a malformed address":
                return Claim(address or "localhost")
            case "fails at a malformed address":
                return Claim({"localhost": "localhost"}[address])
            case "refuses without a reason" if address.endswith("99999"):
                raise ValueError
            case "repeats a password" if "@" in address:
                raise ValueError(f"not an address: {address}")
        claim = super().claim(address)
        if claim is None:
            return Claim(address, confidence=100) if self.fault == "is sure of everything" else None
        if self.fault == "claims it otherwise the second time":
            return Claim(f"x{claim.address}", claim.rest)
        if self.fault == "loses the rest":
            return Claim(claim.address)
        if self.fault == "takes a path for a part of its address" and claim.rest.endswith("/digest"):
            return Claim(f"{claim.address}/{claim.rest}")
        return claim

    def oauth(self, connection: Connection) -> OAuthServer:
        if self.fault == "asks when it is asked for OAuth":
            socket.getaddrinfo("127.0.0.1", 1)
        return OAuthServer()

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        if self.fault == "writes although it is read-only":
            tools = Tools(
                tools.auth, type(tools.http)("regfs-tests"), tools.clock, tools.state_dir, tools.keychain
            )
        found = await super().registries(connection, tools)
        (source,) = found.values()
        if self.fault == "asks when it is opened":
            await source.check()
        if self.fault == "calls a folder what none can be called":
            return {"a/b": source}
        return found

    def source_class(self) -> type[V2Source]:
        return type("BrokenSource", (BrokenSource,), {"fault": self.fault})


class BrokenSource(V2Source):
    fault = ""

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        if self.fault == "hands out what is no capability" and kind is ProviderContract:
            return self  # type: ignore[return-value]
        return super().capability(kind, repository)

    async def manifest(self, repository: str, reference: object) -> RawManifest:
        if reference == "absent":
            match self.fault:
                case "a secret in an exception":
                    raise NotFound(f"nothing for {SECRET}")
                case "a secret in the cause of an exception":
                    raise NotFound("nothing") from ValueError(SECRET)
                case "a secret in a log":
                    logging.getLogger("regfs").debug("signed in with %s", SECRET)
                case "another's error":
                    raise KeyError(reference)
        if self.fault == "follows a redirect with its password":
            await self._led_astray(f"{repository}/manifests/{reference}")
        return await super().manifest(repository, reference)  # type: ignore[arg-type]

    async def _led_astray(self, target: str) -> None:
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
        async with httpx.AsyncClient(headers=headers, auth=(USER, SECRET)) as client:
            reply = await client.get(f"{self.client.base}{target}")
            if "location" in reply.headers:
                await client.get(reply.url.join(reply.headers["location"]))

    async def tags(self, repository: str) -> AsyncIterator[TagPage]:
        if self.fault not in ("follows a link with its password", "follows links for ever"):
            async for page in super().tags(repository):
                yield page
            return
        first = httpx.URL(f"{self.client.base}{repository}/tags/list")
        url: httpx.URL | None = first
        async with httpx.AsyncClient(headers={"Accept-Encoding": "identity"}) as client:
            while url is not None:
                signs = url.host == first.host or self.fault == "follows a link with its password"
                reply = await client.get(url, auth=(USER, SECRET) if signs else None)
                yield TagPage([])
                if self.fault != "follows links for ever" and url != first:
                    return
                link = reply.links.get("next")
                url = url.join(link["url"]) if link else None


FAULTS = {
    "its name is no word": "test_it_says_what_it_is",
    "loses the rest": "test_its_addresses_are_claimed_as_it_says",
    "takes a path for a part of its address": "test_a_path_behind_an_address_is_the_rest_of_its_claim",
    "claims it otherwise the second time": "test_what_is_claimed_is_claimed_again_as_the_same",
    "is sure of everything": "test_what_is_not_its_own_it_is_not_sure_of",
    "takes a malformed address": "test_a_malformed_address_is_refused_with_the_reason",
    "refuses without a reason": "test_a_malformed_address_is_refused_with_the_reason",
    "fails at a malformed address": "test_no_address_whatever_makes_it_fail_or_repeat_a_password",
    "repeats a password": "test_no_address_whatever_makes_it_fail_or_repeat_a_password",
    "asks for a name when it claims": "test_it_asks_nothing_before_somebody_wants_to_know",
    "asks when it is asked for OAuth": "test_it_asks_nothing_before_somebody_wants_to_know",
    "asks when it is opened": "test_it_asks_nothing_before_somebody_wants_to_know",
    "calls a folder what none can be called": "test_its_registries_are_sources_under_names_of_folders",
    "declares what it does not hand out": "test_the_capabilities_are_those_declared",
    "hands out what it does not declare": "test_the_capabilities_are_those_declared",
    "hands out what is no capability": "test_the_capabilities_are_those_declared",
    "writes although it is read-only": "test_read_only_it_hands_out_nothing_that_writes",
    "a secret in an exception": "test_no_secret_shows_in_what_it_says_raises_or_logs",
    "a secret in the cause of an exception": "test_no_secret_shows_in_what_it_says_raises_or_logs",
    "a secret in a repr": "test_no_secret_shows_in_what_it_says_raises_or_logs",
    "a secret in a log": "test_no_secret_shows_in_what_it_says_raises_or_logs",
    "another's error": "test_no_secret_shows_in_what_it_says_raises_or_logs",
    "follows a link with its password": "test_credentials_stay_on_their_host_and_whatever_leads_astray_comes_to_an_end",
    "follows a redirect with its password": "test_credentials_stay_on_their_host_and_whatever_leads_astray_comes_to_an_end",
    "follows links for ever": "test_credentials_stay_on_their_host_and_whatever_leads_astray_comes_to_an_end",
}
"""Each fault, and the test of the suite that has to fail for it."""


@contextmanager
def broken(fault: str, folder: Path) -> Iterator[ServiceHarness]:
    registry = FakeRegistry(signed_in(Behaviour(auth=Auth.BASIC)))
    registry.start()
    try:
        yield FakeHarness(registry, type("Broken", (Broken,), {"fault": fault})(), folder)
    finally:
        registry.stop()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_the_fault(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_provider, "_DEADLINE", 1.5)
    assert FAULTS[fault] in failures(OnFake(), {"harness": partial(broken, fault, tmp_path)}, caplog)


def test_the_suite_finds_nothing_where_nothing_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert failures(OnFake(), {"harness": partial(broken, "", tmp_path)}, caplog) == set()
