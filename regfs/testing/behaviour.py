"""How a `FakeRegistry` behaves: the ways in which real registries differ, and the ways in which hostile ones lie."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Paging(Enum):
    """How a listing is cut into pages."""

    RELATIVE = "a Link relative to the request"
    ABSOLUTE = "a Link with scheme and host"
    CUT = "cut at `n`, without a Link; an unknown `last` starts from the top"
    WHOLE = "all at once: `n` and `last` are ignored"
    LOOP = "every page links to the first one"
    EMPTY = "the first page, then empty pages for ever, each with a new Link"
    ENDLESS = "new names for ever"
    FOREIGN = "the Link leads to another host"


class Order(Enum):
    """The order of the names in a listing."""

    SORTED = "by name"
    REVERSED = "by name, backwards"
    RANDOM = "none, but the same at each request"
    PUSHED = "as pushed"


class Framing(Enum):
    """How the end of a body is known."""

    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "the connection ends"


class TagDelete(Enum):
    """What ``DELETE /manifests/TAG`` does."""

    ACCEPTED = "202: that tag is gone"
    NO_CONTENT = "204: that tag is gone"
    DIGEST_INVALID = "400 DIGEST_INVALID, whether or not there is such a tag"
    UNSUPPORTED = "405 UNSUPPORTED"
    TAKES_SIBLINGS = "202: the manifest is gone, with all its tags"


class DigestDelete(Enum):
    """What ``DELETE /manifests/DIGEST`` does."""

    WITH_TAGS = "the manifest is gone, with all its tags"
    ONLY_DIGEST = "the digest is not found any more; its tags still are"


class Auth(Enum):
    """What the registry wants of a caller."""

    NONE = "nothing"
    BASIC = "a user name and a password"
    BEARER = "a token of its token endpoint"
    KEY = "a key in a header of its own: the password of one of its users"


class Challenges(Enum):
    """How a 401 spells what it wants."""

    PLAIN = "one challenge, as the specification has it"
    BOTH_IN_ONE = "Bearer and Basic in one header"
    TWO_HEADERS = "Basic without a realm, then Bearer, a header each"
    SHOUTING = "scheme and keys in capitals, blanks round the commas"
    REORDERED = "scope first, realm last"
    NO_SERVICE = "without a service"
    NO_SCOPE = "without a scope"
    RELATIVE = "the realm is a path of the registry itself"
    ESCAPED = "quoted strings with backslashes, and a parameter nobody knows"
    NEGOTIATE = "Negotiate, then what is really meant"
    SCOPES = "two scopes in one challenge, the one that matters last"
    BASIC_URL = "a Basic realm that is a URL, and a service beside it"
    OTHER_AFTER = "Bearer to who sends nothing, Basic to who sent what it does not take"
    PING_ONLY = "a challenge at /v2/ alone; elsewhere 401 without a word"
    NONE = "401 without a word"


class DigestHeader(Enum):
    """What ``Docker-Content-Digest`` of a manifest says."""

    RIGHT = "the manifest's digest"
    ABSENT = "nothing"
    WRONG = "another digest"


@dataclass
class Behaviour:
    """All switches; the defaults are a registry that does everything right. May be changed while it runs."""

    # listings
    tag_paging: Paging = Paging.RELATIVE
    catalog_paging: Paging = Paging.RELATIVE
    page_size: int = 100
    """Entries of a page where the request says no ``n``, and the most that it can ask for."""
    order: Order = Order.SORTED
    catalog_status: int = 200
    """Anything but 200 refuses the catalog: 401 (however one is signed in), 403, 404 or 405."""
    catalog_limit: int | None = None
    """An ``n`` over this is 400 PAGINATION_NUMBER_INVALID, as on distribution."""
    emptied_is_null: bool = True
    """A repository without tags says ``"tags": null``; else it is 404 NAME_UNKNOWN."""
    listed_names: tuple[str, ...] = ()
    """Further names that listings of tags hold although there is nothing behind them."""

    # referrers
    referrers_status: int = 200
    """Anything but 200 is a registry without a Referrers API: 404 (as distribution says it), 405, 501, 400; 303 leads
    to another host, as on ghcr.io."""
    referrers_paging: Paging = Paging.RELATIVE
    """`Paging.LOOP`, `EMPTY`, `ENDLESS`, `FOREIGN` as for tags."""
    referrers_filter: bool = True
    """Whether ``artifactType`` is honoured; else all come, and nothing says that a filter was applied."""

    # replies
    framing: Framing = Framing.LENGTH
    digest_header: DigestHeader = DigestHeader.RIGHT
    content_type: str | None = None
    """What ``Content-Type`` says of a manifest instead of the truth; "" leaves the header out."""
    head: bool = True
    """Whether HEAD is answered; else 405."""
    ranges: bool = True
    """Whether a blob's Range is honoured; else 200 with all bytes."""
    redirect_blobs: str = ""
    """Blobs are redirected (307): "elsewhere" is the fake's other host, "loop" the same URL, else a URL's beginning."""
    redirect_lifetime: float | None = None
    """For how many seconds the URL of a redirect is good; then the other host answers 403 to it."""
    redirect_manifests: str = ""
    """As `redirect_blobs`, for manifests."""
    redirect_tags: str = ""
    """As `redirect_blobs`, for lists of tags; the other host has none."""
    warnings: tuple[str, ...] = ()
    """``Warning: 299`` texts on every reply."""

    # deletion
    deletion: bool = True
    """False: every DELETE is 405 UNSUPPORTED."""
    tag_delete: TagDelete = TagDelete.ACCEPTED
    digest_delete: DigestDelete = DigestDelete.WITH_TAGS
    dangling: bool = False
    """Whether a manifest is taken whose blobs or children are not there."""

    # sign-in
    auth: Auth = Auth.NONE
    users: Mapping[str, str] = field(default_factory=lambda: {"tester": "a-password"})
    challenges: Challenges = Challenges.PLAIN
    anonymous_tokens: bool = False
    """Whether the token endpoint gives tokens to pull to callers without credentials."""
    token_get: int = 200
    token_post: int = 200
    """Anything but 200 refuses that form of asking for a token."""
    token_names: tuple[str, ...] = ("token",)
    """Under which names the token stands in the reply."""
    token_lifetime: float = 300.0
    """How long a token is good, in seconds."""
    expires_in: int | None = 300
    """What the reply says of its lifetime; None: nothing."""
    denied: frozenset[str] = frozenset()
    """Repositories that no token is ever good for."""
    issued_ago: float | None = None
    """What ``issued_at`` of the reply says, in seconds before now; negative: its clock is ahead. None: nothing."""
    token_padding: int = 0
    """How many bytes of nothing make the token endpoint's reply longer."""
    first_scope_only: bool = False
    """Whether the token endpoint reads the first ``scope`` of a request alone."""
    key_header: str = "X-Fake-Key"
    """The header that a key goes in."""
    elsewhere_asks: bool = False
    """Whether the other host wants a sign-in of its own: 401 to everything, naming its own token endpoint."""
    actions: frozenset[str] = frozenset({"pull", "push", "delete", "*"})
    """The actions that the token endpoint knows; a scope with another one is 400, as on Quay."""

    # the server
    prefix: str = ""
    """A path before ``/v2/``, like ``/hub``."""
    tls: ssl.SSLContext | None = None
    strict: bool = True
    """Whether a request that a good client never sends is refused and held against it."""
