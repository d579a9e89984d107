"""The contracts between the rooms: what a provider, an auth method, a store and a clock must do.

A `Source` is small and required; whatever else a registry can do is a capability that the tree asks for by its
class, and that a Source hands out or not. The tree never asks which registry it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.manifest import Descriptor, Manifest
from regfs.reference import TagOrDigest

if TYPE_CHECKING:
    import httpx

C = TypeVar("C")


# ── what a registry holds ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TagFacts:
    """What a listing says about a tag without a further request; None where it does not."""

    digest: Digest | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class TagPage:
    """One page of a repository's tags, in the registry's order. Names need not be grammatical: the tree drops those."""

    names: Sequence[str]
    facts: Mapping[str, TagFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest as it arrived. The tree verifies and parses it; ``claimed`` is the digest the registry gave, if any."""

    raw: bytes
    media_type: str
    claimed: Digest | None = None


class Source(Protocol):
    """One registry, by whatever protocol. All names are plain text as in a reference; errors are `regfs.errors`.

    Any method may raise NotSignedIn, Forbidden, RateLimited, DeadlineExceeded, Unreachable, BadReply.
    A Source holds no cache and no state that a caller could see: two calls ask twice.
    """

    @property
    def name(self) -> str:
        """How messages call it, and what stands before the repository in a reference: ``localhost:5000``, ``host/prefix``."""
        ...

    async def check(self) -> None:
        """Ask the registry, as cheaply as can be, whether it answers this caller. Raises as said above, and NotARegistry."""
        ...

    def tags(self, repository: str) -> AsyncIterator[TagPage]:
        """The tags of a repository, page by page. Raises NotFound where there is no such repository."""
        ...

    async def manifest(self, repository: str, reference: TagOrDigest) -> RawManifest:
        """A manifest's bytes (at most 4 MiB: TooLarge). Raises NotFound where there is none."""
        ...

    def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes ``start`` to ``end`` (exclusive; None: to the blob's end) as they arrive, unverified.

        The range never reaches past ``descriptor.size``. Raises NotFound on entering where there is no such blob.
        """
        ...

    def capability(self, kind: type[C], repository: str | None = None) -> C | None:
        """What this Source can do beyond the required, as an object of class ``kind``, or None.

        ``repository`` names the repository it is for, where that matters.
        """
        ...

    async def aclose(self) -> None:
        """Close connections. Calls under way may fail."""
        ...


class Answer(Enum):
    """Whether something can be done: known, or unknown until tried."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Cost(Enum):
    """What a fact about each tag of a listing costs."""

    FREE = "free"
    REQUEST_PER_TAG = "one request a tag"
    ABSENT = "absent"


@runtime_checkable
class ListsRepositories(Protocol):
    """Capability: says which repositories there are."""

    def repositories(self) -> AsyncIterator[Sequence[str]]:
        """All repositories, page by page, in any order. Raises ListingRefused where this caller may not list them."""
        ...


@dataclass(frozen=True, slots=True)
class NamespacePage:
    """One page of what is in a namespace: full names, of namespaces directly below it and of repositories in it.

    A repository may be deeper by several components; what leads there is then a namespace too, and all that is in it
    has been said. So a name that holds what this does not tell is among ``namespaces``, a repository too; a namespace
    that is also a repository is among the ``repositories`` of its own pages. ``partial``: why this is not all that is
    there, for people; empty: nothing is known to be missing, but in ``""``, which never tells that a name is absent.
    """

    namespaces: Sequence[str] = ()
    repositories: Sequence[str] = ()
    partial: str = ""


@runtime_checkable
class ListsNamespaces(Protocol):
    """Capability: lists namespace by namespace, where a list of all repositories is not to be had or asks too much.

    A Source that has it need not be a `ListsRepositories`; where it is both, the tree asks this.
    """

    def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """What is in a namespace (``""``: what the registry shows this caller first), page by page, in any order.

        Looking into one asks about no other. Raises NotFound where there is no such namespace, and gives no page before:
        the first one says that there is. Raises ListingRefused where this caller may not look into it.
        """
        ...


@runtime_checkable
class ResolvesTags(Protocol):
    """Capability: says where a tag points without giving the manifest (HEAD)."""

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """The tag's manifest as a descriptor. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class ReferrerPage:
    """One page of what refers to a manifest: descriptors with their ``artifactType`` and annotations.

    ``dropped``: how many more it told of that cannot be used.
    """

    referrers: Sequence[Descriptor]
    dropped: int = 0


@runtime_checkable
class ListsReferrers(Protocol):
    """Capability: says which manifests refer to one (signatures, SBOMs, attestations)."""

    def referrers(
        self, repository: str, digest: Digest, artifact_type: str = ""
    ) -> AsyncIterator[ReferrerPage]:
        """What refers to that manifest, each once, page by page; of that ``artifactType`` alone where one is given.

        Nothing where nothing does, or where there is no such manifest. Raises what a Source raises.
        """
        ...


@runtime_checkable
class HonoursRanges(Protocol):
    """Capability: says whether a part of a blob can be had by itself. A Source without it gives parts."""

    def honours_ranges(self) -> Answer:
        """NO once a part was asked for and the whole came: `Source.blob` then reads over what comes before the part."""
        ...


@runtime_checkable
class Metered(Protocol):
    """Capability: getting a manifest counts against a quota, so nothing is fetched ahead, and HEAD comes first."""

    def quota(self) -> Mapping[str, int]:
        """What is known of the quota: ``limit``, ``remaining``, ``window`` (seconds); empty where nothing is yet."""
        ...


@runtime_checkable
class DatesTags(Protocol):
    """Capability: knows when tags were made or pushed."""

    @property
    def cost(self) -> Cost:
        """What a date costs. FREE dates come with `TagPage.facts`."""
        ...


@dataclass(frozen=True, slots=True)
class Deletion:
    """How a tag was deleted: ``way`` is for the log ("the registry's tag deletion", "a throw-away index")."""

    way: str


@runtime_checkable
class DeletesTags(Protocol):
    """Capability: deletes one tag, and nothing else: not its digest, not its siblings."""

    def can_delete(self) -> Answer:
        """Whether this instance, repository and token allow it."""
        ...

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """Delete that tag. ``seen`` is the digest the user saw, where known: Moved if the tag no longer has it.

        Raises NotFound, DeletionDisabled, Refused, Moved. Whatever it raises, the tag is then as it was, or gone.
        """
        ...


@runtime_checkable
class DeletesRepositories(Protocol):
    """Capability: removes an empty repository from the registry."""

    async def delete_repository(self, repository: str) -> None:
        """Remove a repository that has no tags. Raises NotFound, Refused."""
        ...


@runtime_checkable
class Recovers(Protocol):
    """Capability: an earlier daemon may have been killed in the middle of a write."""

    async def recover(self) -> Sequence[str]:
        """Finish or undo what an earlier daemon left half done; a line for each thing done. Must be safe to repeat."""
        ...


@runtime_checkable
class Counts(Protocol):
    """Capability: counts what it asked of the registry."""

    def counters(self) -> Mapping[str, int]:
        """Counters since the start, by name (``requests``, ``retries``, ``errors``, ``token_requests``, ``bytes``)."""
        ...


# ── providers ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a sign-in asks for. A ``secret`` is read without echo and never stored in a config."""

    name: str
    label: str
    secret: bool = False
    required: bool = True
    help: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A provider's word that an address is its own: normalised, split from the path behind it, and how sure it is.

    ``confidence``: 100 its own host names, 10 anything that might be. ``rest`` is what follows the registry's
    address in a path such as ``localhost:5000/team/app``: without a slash at either end.
    """

    address: str
    rest: str = ""
    confidence: int = 10
    reason: str = ""
    """Why the provider takes it, for people: what `regfs login` says (``its own host name``)."""


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """How requests are sent, whoever sends them. Times in seconds.

    ``read_only``: nothing but GET and HEAD goes to the registry's API, whoever asks.
    """

    user_agent: str
    call_deadline: float = 30.0
    stall_deadline: float = 30.0
    max_requests: int = 16
    retries: int = 4
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What the daemon gives to a provider so that it can build a Source for one connection."""

    auth: httpx.Auth | None
    http: HttpPolicy
    clock: Clock
    state_dir: Path
    """A folder of this connection's own, for journals; it may not exist yet."""
    keychain: Keychain | None = None
    """Where this connection's credentials come from, for a service that is asked beside the registry."""


class Provider(Protocol):
    """A kind of registry. Found by the entry-point group ``regfs.providers``; made without arguments."""

    name: str
    """As in ``--provider NAME``; one lower-case word."""
    title: str
    """As a person would call it."""
    default_auth: str
    """The auth method that it uses where the user names none."""
    many: bool
    """Whether more than one connection may exist."""

    @property
    def fields(self) -> Sequence[Field]:
        """What its sign-in needs beyond what the auth method asks for."""
        ...

    def claim(self, address: str) -> Claim | None:
        """Whether ``address`` (which may have a path behind it) can be of this kind. ValueError: malformed, with the reason."""
        ...

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        """The registries that the connection yields, by folder name; a single one bears the name ``""``.

        Makes no request where the answer is known without one.
        """
        ...


@runtime_checkable
class BringsCredentials(Protocol):
    """What a provider may be too: it knows places for credentials that nobody else has (another program's sign-in)."""

    def credential_sources(self, connection: Connection) -> Sequence[CredentialSource]:
        """Places to look in for this connection after all others had nothing, in order."""
        ...


@runtime_checkable
class OffersOAuth(Protocol):
    """What a provider may be too: its service signs people in by OAuth."""

    def oauth(self, connection: Connection) -> OAuthServer:
        """Where that service's OAuth endpoints are for this connection, and what to ask for. Asks nothing."""
        ...


@runtime_checkable
class RecognisesReplies(Protocol):
    """What a provider may be too: it knows its kind by how a registry answers, whatever its host is called."""

    def recognise(self, address: str, status: int, headers: Mapping[str, str]) -> Claim | None:
        """What an unsigned ``GET /v2/`` at ``address`` says about it (header names in lower case); None: nothing."""
        ...


@runtime_checkable
class SpellsPaths(Protocol):
    """What a provider may be too: people write names of its registries otherwise than the registries do."""

    def spelled(self, path: str) -> str:
        """The path behind a registry's address, as it was typed, in the registry's own spelling."""
        ...


@runtime_checkable
class DeclaresCapabilities(Protocol):
    """What a provider may be too: it says without a connection what its Sources can do; `regfs plugins` shows it."""

    @property
    def capabilities(self) -> Sequence[type]:
        """Every capability (`DeletesTags` …) that a Source of its hands out on a mount that may write."""
        ...


# ── sign-in ──────────────────────────────────────────────────────────────────────────────────────


class CredentialKind(Enum):
    """What a secret is."""

    PASSWORD = "password"
    IDENTITY_TOKEN = "identity token"
    REGISTRY_TOKEN = "registry token"
    OAUTH_GRANT = "OAuth sign-in"
    """A grant as the ``oauth`` method keeps it: a refresh token and where it may be used. Never sent as it is."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and a secret. ``origin`` says where it came from, for people. The secret is in no repr.

    ``expires`` is when it stops being good, in seconds since 1970; None: that is not known.
    """

    username: str
    secret: str = field(repr=False)
    kind: CredentialKind = CredentialKind.PASSWORD
    origin: str = ""
    expires: float | None = None


class CredentialSource(Protocol):
    """One place where credentials are kept."""

    @property
    def name(self) -> str:
        """How people call it: ``keyring``, ``~/.docker/config.json``."""
        ...

    async def get(self, connection: Connection) -> Credential | None:
        """The credential for a connection; None: has none. CredentialError: could not say."""
        ...


@runtime_checkable
class KnowsParts(Protocol):
    """What a credential source or a keychain may be too: it has credentials for parts of a registry.

    Its ``get`` then heeds `Connection.part`: the credential of the longest key that leads there.
    """

    async def parts(self, connection: Connection) -> Sequence[str]:
        """The namespaces and repositories of the registry that have a credential of their own: ``team``, ``team/app``.

        Runs no helper program. CredentialError: could not say.
        """
        ...


@runtime_checkable
class KeepsCredentials(Protocol):
    """A credential source that one can write to."""

    async def store(self, connection: Connection, credential: Credential) -> None:
        """Keep it, in place of an older one. Raises CredentialError."""
        ...

    async def erase(self, connection: Connection) -> bool:
        """Forget it; False where there was none. Raises CredentialError."""
        ...


class Keychain(Protocol):
    """Where credentials come from, in order; the first source that has one wins."""

    async def get(self, connection: Connection) -> Credential | None:
        """The first credential found. CredentialError only where none was found and a source failed."""
        ...


@runtime_checkable
class RenewsCredentials(Protocol):
    """A keychain that can get another credential in the place of one that was refused."""

    async def renewed(self, connection: Connection, refused: Credential) -> Credential | None:
        """Another credential than ``refused``, which may cost a request; None: there is none.

        However many wait, one renewal is made. Raises NotSignedIn where only a person can help, and CredentialError.
        """
        ...


class Exchange(Protocol):
    """Sends what a sign-in itself has to ask, under the connection's own rules for TLS, proxies, hosts and deadlines."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Send and read it whole; no redirect is followed. Raises what a Source raises where nothing answers."""
        ...


@dataclass(frozen=True, slots=True)
class OAuthServer:
    """An authorization server: RFC 6749, 8628 (device), 7636 (PKCE); URLs. ``issuer``: the rest is discovered (RFC 8414).

    ``username``: with which user name a registry takes an access token as a password; empty: as a Bearer token.
    """

    token_endpoint: str = ""
    device_endpoint: str = ""
    authorization_endpoint: str = ""
    issuer: str = ""
    scopes: Sequence[str] = ()
    username: str = ""
    client_help: str = ""
    """How a person gets a client id there, for people."""


class Person(Protocol):
    """Whoever sits before the terminal during a sign-in."""

    def tell(self, text: str) -> None:
        """Show a line."""
        ...

    def show_link(self, url: str, code: str = "") -> None:
        """Show a URL to open (and the code to type there) in every way the terminal can."""
        ...


@runtime_checkable
class RefinesKeychain(Protocol):
    """What an auth method may be too: what is kept is not what is sent (a grant, for which it gets access tokens)."""

    def refined(self, connection: Connection, keychain: Keychain, exchange: Exchange) -> Keychain:
        """The keychain that flows are to ask instead of ``keychain``. Asks nothing yet."""
        ...


@runtime_checkable
class SignsInWithPerson(Protocol):
    """What an auth method may be too: its sign-in is a conversation with a person and a service, not a form."""

    async def sign_in(
        self,
        connection: Connection,
        answers: Mapping[str, str],
        server: OAuthServer | None,
        exchange: Exchange,
        person: Person,
    ) -> Credential:
        """Carry it out; ``server`` is what the provider knows. Raises NotSignedIn, CredentialError."""
        ...


class AuthMethod(Protocol):
    """A way of signing in. Found by the entry-point group ``regfs.auth``; made without arguments."""

    name: str
    title: str

    @property
    def fields(self) -> Sequence[Field]:
        """What it asks a person for; none: nothing."""
        ...

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:
        """The flow that signs the connection's requests: yields requests, receives responses. None: sends nothing."""
        ...

    def credential(self, answers: Mapping[str, str]) -> Credential | None:
        """The credential to keep, from what a person answered; None: there is nothing to keep. Raises CredentialError."""
        ...

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:
        """User name and secret as Docker's credential protocol spells them (``<token>`` for an identity token), or None."""
        ...


# ── around them ──────────────────────────────────────────────────────────────────────────────────


class ContentStore(Protocol):
    """Verified content by digest. What is put is already verified; what is got needs no check."""

    async def get(self, digest: Digest) -> bytes | None:
        """The whole content, or None."""
        ...

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep it, if there is room. Never raises for want of room."""
        ...


Fetch = Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""A content's bytes from an offset on, as `Source.blob` gives them."""


class OpenContent(Protocol):
    """Content by digest that can be read in any order, and that no store removes, until it is closed."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def verified(self) -> bool:
        """Whether all of it was verified by its digest."""
        ...

    async def read(self, start: int, length: int) -> bytes | None:
        """``length`` bytes from offset ``start``, fewer only at the end.

        None: they are not there, and will not be; ask the registry.
        """
        ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


class ContentWriter(Protocol):
    """The right, and with it the duty, to fetch what is missing of a content that others read."""

    async def fill(self, fetch: Fetch) -> None:
        """Fetch it to its verified end; ends early, without an error, where nobody reads any more or the disk is full.

        A transfer that was broken off is taken up where it was, as long as each brings something. Raises DigestMismatch,
        and what ``fetch`` raises; those who read get the same.
        """
        ...


class ArrivingContent(OpenContent, Protocol):
    """Content that is read while it arrives.

    Its `read` waits for the bytes, and where they are its last ones also for the word that all were right. It raises
    DigestMismatch once they were not, and what ended the fetching.
    """

    def claim(self) -> ContentWriter | None:
        """Whoever gets it must let it fill at once. None: another does already, or nothing is missing."""
        ...

    def missing(self, offset: int) -> int:
        """How many bytes have to arrive before the one at ``offset`` does, for who may fetch a range instead. 0: it is there."""
        ...

    def is_proven(self, start: int, end: int) -> bool:
        """Whether that range was verified, by the content's digest or one of its own."""
        ...

    async def put(self, start: int, data: bytes, *, proven: bool = False) -> bool:
        """Keep a range that was fetched by itself; ``proven``: it was verified by a digest of its own. False: there is no room."""
        ...


class BlobStore(ContentStore, Protocol):
    """A ContentStore that also holds content too large for memory, content that is arriving, and what is made from it.

    Nothing here raises for what a disk may do: what can't be kept is not there.
    """

    async def open(self, digest: Digest, size: int) -> OpenContent | None:
        """Verified content of that size, or None."""
        ...

    async def download(self, digest: Digest, size: int) -> ArrivingContent | None:
        """Content of which not all is there, one for all who ask. None: there is no place for it; read without the store."""
        ...

    async def open_derived(self, digest: Digest, name: str, version: int) -> OpenContent | None:
        """What was made from a content and kept under ``name``, in that version of its format, undamaged; or None."""
        ...

    async def put_derived(self, digest: Digest, name: str, version: int, chunks: Iterable[bytes]) -> None:
        """Keep it, if there is room; it goes when its content goes, or before. ``chunks`` are made in a thread, one by one."""
        ...


# ── inside an image ──────────────────────────────────────────────────────────────────────────────


class ContentReader(Protocol):
    """An open file: a blob's bytes as stored, or a file's within an image."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def verified(self) -> bool:
        """Whether all of it is known to be what the digests say."""
        ...

    async def read(self, start: int, length: int) -> bytes:
        """``length`` bytes from offset ``start``, fewer only at the end; waits for them, 30 s without progress at most.

        Raises DigestMismatch where they are known to be wrong, or are the last ones and the whole proves to be wrong.
        """
        ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


class Blobs(Protocol):
    """A registry's blobs, through the store where there is one: a blob is fetched once, however many read it."""

    async def open(self, repository: str, descriptor: Descriptor) -> ContentReader:
        """A blob to read in any order. Raises NotFound, and what a Source raises."""
        ...

    async def derived(self, digest: Digest, name: str, version: int) -> bytes | None:
        """What was made from a blob and kept, whole; None: it has to be made (anew)."""
        ...

    async def keep_derived(self, digest: Digest, name: str, version: int, data: bytes) -> None:
        """Keep it, if there is room."""
        ...


class EntryKind(Enum):
    """What a name in an image's root tree is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class RootEntry:
    """One name of an image's root tree, as the merge of its layers has it.

    ``path``: within the root, without a slash at either end, ``b""`` the root; any bytes but NUL. ``mode``: the permission
    bits with setuid, setgid and sticky. Owners as in the image. ``mtime_ns``: nanoseconds since 1970. ``links``: how many
    names the file has in the merged tree, which share ``identity``. ``target``: a link's, as it is to be shown.
    ``device``: of a device node, as `os.makedev` makes it. ``xattrs``: full names (``user.x``, ``security.capability``).
    """

    path: bytes
    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    links: int = 1
    identity: Hashable = None
    target: bytes = b""
    device: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


class RootTree(Protocol):
    """An image's merged file tree, read lazily: a question fetches and indexes what layers it needs, and no more."""

    async def find(self, path: bytes) -> RootEntry:
        """The entry of that very path: links in it are not followed. Raises NotFound, and what reading a layer raises."""
        ...

    async def entries(self, path: bytes) -> Sequence[RootEntry]:
        """What a folder holds, by name in byte order. Raises NotFound, NotADirectory."""
        ...

    async def open(self, entry: RootEntry) -> ContentReader:
        """A file to read. Its reader is not ``verified`` until its layer is."""
        ...

    def again(self, path: bytes, identity: Hashable) -> RootEntry:
        """An entry that was found before, made anew from its path and identity: for who has to hold many."""
        ...

    def layer_of(self, entry: RootEntry) -> Digest | None:
        """The digest of the layer that an entry comes from; None: no layer has a member for it."""
        ...


class Images(Protocol):
    """Shows what is inside images."""

    async def root(self, repository: str, image: Manifest) -> RootTree:
        """The merged tree of an image's layers; asks nothing yet. Raises Unsupported for what is no image."""
        ...


class Clock(Protocol):
    """Time, so that tests can set it."""

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        ...

    def time(self) -> float:
        """Seconds since 1970."""
        ...
