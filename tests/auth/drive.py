"""Flows driven without a socket: a function stands for the registry and its token endpoint."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import httpx
import trio
from trio.testing import MockClock

from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind

R = TypeVar("R")

BOB = Credential("bob", "pass word:ü", origin="a test")
NEW_BOB = Credential("bob", "another", origin="a test")
IDENTITY = Credential("", "identity-token-of-bob", CredentialKind.IDENTITY_TOKEN, origin="a test")
REGISTRY_TOKEN = Credential("", "registry-token-of-bob", CredentialKind.REGISTRY_TOKEN, origin="a test")

HOST = "reg.example"
BASE = f"https://{HOST}/v2/"
REALM = "https://auth.example/token"

Answer = Callable[[httpx.Request], httpx.Response]


def connection(address: str = HOST, **more: object) -> Connection:
    return Connection(name="reg", address=address, **more)  # type: ignore[arg-type]


@dataclass
class FixedKeychain:
    """Gives its credentials one after the other, the last one again and again; an error is raised."""

    credentials: Sequence[Credential | CredentialError | None] = (None,)
    asked: int = 0
    delay: float = 0

    async def get(self, _: Connection) -> Credential | None:
        self.asked += 1
        await trio.sleep(self.delay)
        given = self.credentials[min(self.asked, len(self.credentials)) - 1]
        if isinstance(given, CredentialError):
            raise given
        return given


@dataclass
class TokenRegistry:
    """A registry that wants tokens, and the endpoint that gives them. What was sent is in ``requests``."""

    users: dict[str, str] = field(default_factory=lambda: {"bob": "pass word:ü"})
    anonymous: bool = False
    realm: str = REALM
    service: str = "svc"
    catalog: bool = True
    lifetime: int | None = 300
    requests: list[httpx.Request] = field(default_factory=list)
    valid: dict[str, set[str]] = field(default_factory=dict)
    """The tokens that are good now, and the scopes of each."""
    extra: dict[str, object] = field(default_factory=dict)
    """What token replies hold besides."""

    @property
    def token_requests(self) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.host != HOST]

    @property
    def refusals(self) -> int:
        return self._refusals

    _refusals: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(_copy(request))
        return self.token(request) if request.url.host != HOST else self.registry(request)

    def scope(self, request: httpx.Request) -> str:
        path = request.url.path.removeprefix("/v2/")
        if path == "_catalog":
            return "registry:catalog:*"
        actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(request.method, "pull,push")
        return f"repository:{path.rpartition('/manifests/')[0]}:{actions}" if path else ""

    def registry(self, request: httpx.Request) -> httpx.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        wanted = self.scope(request)
        if scheme == "Bearer" and token in self.valid and (not wanted or wanted in self.valid[token]):
            return httpx.Response(200, text="content")
        self._refusals += 1
        scope = f',scope="{wanted}"' if wanted else ""
        header = f'Bearer realm="{self.realm}",service="{self.service}"{scope}'
        return httpx.Response(
            401, headers={"WWW-Authenticate": header}, json={"errors": [{"message": "sign in"}]}
        )

    def token(self, request: httpx.Request) -> httpx.Response:
        pair = base64.b64decode(request.headers.get("Authorization", "").partition(" ")[2]).decode()
        user, _, password = pair.partition(":")
        if request.method != "GET":
            return httpx.Response(405)
        if not (self.users.get(user) == password if pair else self.anonymous):
            return httpx.Response(401, json={"details": "incorrect username or password"})
        return self.granted(set(request.url.params.get_list("scope")))

    def granted(self, scopes: set[str]) -> httpx.Response:
        token = f"token-{len(self.valid)}"
        self.valid[token] = scopes if self.catalog else scopes - {"registry:catalog:*"}
        lifetime = {} if self.lifetime is None else {"expires_in": self.lifetime}
        return httpx.Response(200, json={"token": token, **lifetime, **self.extra})


def _copy(request: httpx.Request) -> httpx.Request:
    """A flow signs the same request again: what was sent is kept as it was."""
    return httpx.Request(request.method, request.url, headers=request.headers, content=request.content)


async def send(
    flow: httpx.Auth, answer: Answer, target: str = "app/manifests/v1", method: str = "GET"
) -> httpx.Response:
    """Send one request through a flow, as httpx does; the reply that its caller gets."""
    url = target if "://" in target else BASE + target
    steps = flow.async_auth_flow(httpx.Request(method, url, headers={"User-Agent": "regfs/test"}))
    try:
        request = await anext(steps)
        while True:
            await trio.lowlevel.checkpoint()
            response = answer(request)
            response.request = request
            try:
                request = await steps.asend(response)
            except StopAsyncIteration:
                return response
            await response.aread()
    finally:
        await steps.aclose()


def run(test: Callable[[], Awaitable[R]]) -> R:
    """Run a test in trio, with a clock that never waits."""
    return trio.run(test, clock=MockClock(autojump_threshold=0))


def sent(requests: Sequence[httpx.Request]) -> list[tuple[str, str, str]]:
    """Requests as method, host and scheme of their Authorization."""
    return [
        (request.method, request.url.host, request.headers.get("Authorization", "").partition(" ")[0])
        for request in requests
    ]
