"""The API (v4) of a `FakeGitLab`: routes, tokens and their scopes, both kinds of paging. For what it follows, see there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from regfs.testing.records import Request
from regfs.testing.replies import Reply, json_reply
from regfs.testing.store import Store
from tests.support.fake_gitlab_data import MAINTAINER, REPORTER, Project, Token, World

_READ: Final = frozenset({"api", "read_api"})
_PAGING: Final = frozenset(
    {"page", "per_page", "pagination", "order_by", "sort", "cursor", "id_after", "last"}
)

Row = dict[str, Any]
Handler = Callable[[Token | None, Sequence[str], Mapping[str, str]], Reply]


class _Refused(Exception):
    def __init__(self, status: int, body: Row) -> None:
        super().__init__(str(body))
        self.reply = json_reply(body, status)


def _not_found(what: str) -> _Refused:
    return _Refused(404, {"message": f"404 {what} Not Found"})


def _forbidden() -> _Refused:
    return _Refused(403, {"message": "403 Forbidden"})


class FakeApi:
    """What is below ``/api/v4/``."""

    def __init__(self, world: World, store: Store, url: Callable[[], str], violations: list[str]) -> None:
        self._world = world
        self._store = store
        self._url = url
        self._violations = violations
        self.most = 100
        self.is_gitlab_com = False
        self.links = True
        self.next_pages = True
        self.tells_rules = True
        self.deletes = True
        """False: the registry fails a deletion, and GitLab says 400."""
        self.really_deletes = True
        """False: 200, and the tag is still there."""
        self._routes: list[tuple[str, str, frozenset[str], frozenset[str], bool, Handler]] = [
            # method, path, parameters, scopes, whether a job token is taken, handler
            ("GET", r"version", frozenset(), _READ | {"read_user"}, False, self._version),
            ("GET", r"personal_access_tokens/self", frozenset(), frozenset(), False, self._self),
            ("GET", r"groups", _PAGING | {"top_level_only", "all_available"}, _READ, False, self._groups),
            ("GET", r"groups/([^/]+)/subgroups", _PAGING, _READ, False, self._subgroups),
            ("GET", r"groups/([^/]+)/projects", _PAGING | {"with_shared", "simple"}, _READ, False, self._group_projects),
            ("GET", r"groups/([^/]+)/registry/repositories", _PAGING, _READ, False, self._group_repositories),
            ("GET", r"users/([^/]+)/projects", _PAGING | {"simple"}, _READ, False, self._user_projects),
            ("GET", r"projects", _PAGING | {"membership", "simple"}, _READ, False, self._projects),
            ("GET", r"projects/([^/]+)/registry/repositories", _PAGING, _READ, True, self._repositories),
            ("GET", r"projects/([^/]+)/registry/repositories/(\d+)/tags", _PAGING, _READ, True, self._tags),
            ("GET", r"projects/([^/]+)/registry/repositories/(\d+)/tags/([^/]+)", frozenset(), _READ, True, self._tag),
            ("DELETE", r"projects/([^/]+)/registry/repositories/(\d+)/tags/([^/]+)", frozenset(), frozenset({"api"}), True, self._delete),
            ("GET", r"projects/([^/]+)/registry/protection/tag/rules", frozenset(), _READ, False, self._rules),
        ]  # fmt: skip

    def answer(self, request: Request, path: str) -> Reply:
        """The reply to a request for ``path``, which is as it was sent: encoded."""
        matching = [(route, match) for route in self._routes if (match := re.fullmatch(route[1], path))]
        if not matching:
            return self._wrong(request, 404, "404 Not Found")
        allowed = [(route, match) for route, match in matching if route[0] == request.method]
        if not allowed:
            return self._wrong(request, 405, "405 Not Allowed")
        (_, _, parameters, scopes, for_jobs, handler), match = allowed[0]
        query = dict(parse_qsl(urlsplit(request.target).query, keep_blank_values=True))
        self._check_query(request, query, parameters)
        try:
            token = self._token(request, for_jobs)
            self._check_scope(token, scopes)
            reply = handler(token, [unquote(part) for part in match.groups()], query)
        except _Refused as refused:
            return refused.reply
        return self._paged(request, reply, query)

    # ── who asks ─────────────────────────────────────────────────────────────────────────────────

    def _token(self, request: Request, for_jobs: bool) -> Token | None:
        names = [
            n for n in ("private-token", "job-token", "deploy-token", "authorization") if n in request.headers
        ]
        if len(names) > 1:
            self._violations.append(f"several credentials at once: {names}")
        if not names:
            return None
        name, secret = names[0], request.headers[names[0]]
        if name == "authorization":
            scheme, _, secret = secret.partition(" ")
            if scheme != "Bearer":
                self._violations.append(f"{scheme} credentials went to the API")
        token = self._world.token(secret)
        self._check_header(name, token, for_jobs)
        if token is None or token.kind == "deploy" or (name == "private-token" and not token.is_access):
            raise _Refused(401, {"message": "401 Unauthorized"})
        if token.state == "expired":
            raise _Refused(401, {"error": "invalid_token", "error_description": "Token is expired. You can either do re-authorization or token refresh."})  # fmt: skip
        if token.state == "revoked":
            raise _Refused(401, {"error": "invalid_token", "error_description": "Token was revoked. You have to re-authorize from the user."})  # fmt: skip
        return token

    def _check_header(self, name: str, token: Token | None, for_jobs: bool) -> None:
        kind = token.kind if token else ""
        if kind == "deploy":
            self._violations.append("a deploy token went to the API, which does not take it")
        if name == "job-token" and not for_jobs:
            self._violations.append("a job token went where none is taken: GitLab would answer as to nobody")
        expected = {"job": "job-token", "oauth": "authorization"}.get(kind)
        if expected and name != expected:
            self._violations.append(f"the header of a {kind} token is {expected}, not {name}")

    def _check_scope(self, token: Token | None, scopes: frozenset[str]) -> None:
        if token is None or token.kind == "job" or not scopes or token.scopes & scopes:
            return
        raise _Refused(403, {"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token.", "scope": " ".join(sorted(scopes))})  # fmt: skip

    def _check_query(self, request: Request, query: Mapping[str, str], known: frozenset[str]) -> None:
        where = f"{request.method} {request.target[:200]}"
        for name in query.keys() - known:
            self._violations.append(f"{where}: there is no parameter {name}")
        if not query.get("per_page", "20").isdecimal() or not 0 < int(query.get("per_page", "20")) <= 100:
            self._violations.append(f"{where}: a page has 1 to 100 entries")
        if "application/json" not in request.headers.get("accept", ""):
            self._violations.append(f"{where}: without Accept: application/json")

    def _wrong(self, request: Request, status: int, said: str) -> Reply:
        self._violations.append(f"{request.method} {request.target[:200]}: {said}")
        return json_reply({"error": said}, status)

    # ── paging ───────────────────────────────────────────────────────────────────────────────────

    def _paged(self, request: Request, reply: Reply, query: Mapping[str, str]) -> Reply:
        rows = getattr(reply, "rows", None)
        if rows is None:
            return reply
        size = min(int(query.get("per_page", "20")), self.most)
        if query.get("pagination") == "keyset":
            return self._by_keys(request, rows, dict(query), size, reply)
        number = int(query.get("page", "1"))
        pages = max(1, -(-len(rows) // size))
        following = str(number + 1) if number < pages else ""
        headers = [("X-Page", str(number)), ("X-Per-Page", str(size)), ("X-Total", str(len(rows)))]
        headers += [("X-Total-Pages", str(pages))]
        if self.next_pages:
            headers.append(("X-Next-Page", following))
        if self.links:
            links = {"next": following, "first": "1", "last": str(pages)}
            spelled = [
                self._link(request, {**query, "page": page}, rel) for rel, page in links.items() if page
            ]
            headers.append(("Link", ", ".join(spelled)))
        return json_reply(rows[(number - 1) * size : number * size], 200, *headers)

    def _by_keys(
        self, request: Request, rows: list[Row], query: dict[str, str], size: int, reply: Reply
    ) -> Reply:
        key: str = getattr(reply, "keyset", "")
        if not key or query.get("order_by") != key or query.get("sort") not in ("asc", "desc"):
            self._violations.append(f"{request.target[:200]}: no keyset paging here by that")
            return json_reply(
                {"error": "Keyset pagination is not yet available for this type of request"}, 405
            )
        mark = "id_after" if key == "id" else "last"
        after = query.get(mark)
        rows = sorted(rows, key=lambda row: row[key])
        rest = [row for row in rows if after is None or row[key] > (int(after) if key == "id" else after)]
        page, more = rest[:size], len(rest) > size
        headers = [("Link", self._link(request, {**query, mark: str(page[-1][key])}, "next"))] if more else []
        return json_reply(page, 200, *headers)

    def _link(self, request: Request, query: Mapping[str, str], rel: str) -> str:
        path = urlsplit(request.target).path
        base = urlsplit(self._url())
        return f'<{base.scheme}://{base.netloc}{path}?{urlencode(query)}>; rel="{rel}"'

    # ── handlers ─────────────────────────────────────────────────────────────────────────────────

    def _version(self, token: Token | None, _parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        if token is None:
            raise _Refused(401, {"message": "401 Unauthorized"})
        return json_reply({"version": "18.9.0", "revision": "0286e4c6"})

    def _self(self, token: Token | None, _parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        if token is None or not token.is_access:
            raise _Refused(401, {"message": "401 Unauthorized"})
        return json_reply({"id": 4, "name": "a token", "revoked": False, "scopes": sorted(token.scopes), "user_id": 3, "active": True, "expires_at": None})  # fmt: skip

    def _groups(self, token: Token | None, _parts: Sequence[str], query: Mapping[str, str]) -> Reply:
        member = {
            p.low.split("/")[0]
            for p in self._world.projects.values()
            if token and self._world.is_member(token, p)
        }
        rows = [self._group_row(g) for g in sorted(self._world.groups) if g.lower().split("/")[0] in member]
        return _rows([r for r in rows if "/" not in r["full_path"] or query.get("top_level_only") != "true"])

    def _subgroups(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        group = self._group(token, parts[0])
        below = [g for g in sorted(self._world.groups) if g.rpartition("/")[0] == group]
        return _rows([self._group_row(g) for g in below if self._world.sees_group(token, g)])

    def _group_projects(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        return _rows(self._projects_in(token, self._group(token, parts[0])))

    def _user_projects(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        if parts[0] not in self._world.users:
            raise _not_found("User")
        return _rows(self._projects_in(token, parts[0]))

    def _projects(self, token: Token | None, _parts: Sequence[str], query: Mapping[str, str]) -> Reply:
        found = self._world.projects.values()
        if query.get("membership") == "true" and token is not None:
            return _rows([self._project_row(p) for p in found if self._world.is_member(token, p)], "id")
        return _rows([self._project_row(p) for p in found if self._world.sees(token, p)], "id")

    def _group_repositories(
        self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]
    ) -> Reply:
        group = self._group(token, parts[0])
        if token is None or token.role(group.lower()) < REPORTER:
            raise _forbidden()
        return _rows([row for row in self._repository_rows() if row["path"].startswith(f"{group.lower()}/")])

    def _repositories(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        project = self._readable(token, parts[0])
        return _rows([row for row in self._repository_rows() if row["project_id"] == project.id])

    def _tags(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        path = self._repository(token, parts)
        names = sorted(self._store.tags(path) or ())
        rows = [{"name": n, "path": f"{path}:{n}", "location": f"registry/{path}:{n}"} for n in names]
        return _rows(rows, "name" if self.is_gitlab_com else "")

    def _tag(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        path, tag = self._repository(token, parts), parts[2]
        digest = (self._store.tags(path) or {}).get(tag)
        if digest is None:
            raise _not_found("Tag")
        return json_reply({"name": tag, "path": f"{path}:{tag}", "digest": str(digest), "created_at": "2026-01-06T16:49:51.272+00:00", "total_size": 350224384})  # fmt: skip

    def _delete(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        path, tag = self._repository(token, parts), parts[2]
        project = self._world.project_of(path)
        if project is None or not self._world.deletes_tags(token, project):
            raise _forbidden()
        if tag not in (self._store.tags(path) or {}):
            raise _not_found("Tag")
        if not self.deletes:
            return json_reply({"message": "400 Bad request"}, 400)
        if self.really_deletes:
            self._store.remove_tag(path, tag)
        return Reply(200, [("Content-Type", "application/json")], b"200")

    def _rules(self, token: Token | None, parts: Sequence[str], _query: Mapping[str, str]) -> Reply:
        project = self._readable(token, parts[0])
        if not self.tells_rules:
            raise _Refused(404, {"error": "404 Not Found"})
        if token is None or token.role(project.low) < MAINTAINER:
            raise _forbidden()
        return json_reply([
            {"id": number, "project_id": project.id, "tag_name_pattern": pattern, "minimum_access_level_for_push": least, "minimum_access_level_for_delete": least}
            for number, (pattern, least) in enumerate(project.rules, 1)
        ])  # fmt: skip

    # ── what is meant ────────────────────────────────────────────────────────────────────────────

    def _group(self, token: Token | None, ref: str) -> str:
        group = self._world.group(ref)
        if group is None or not self._world.sees_group(token, group):
            raise _not_found("Group")
        return group

    def _readable(self, token: Token | None, ref: str) -> Project:
        project = self._world.project(ref)
        if project is None or not self._world.sees(token, project):
            raise _not_found("Project")
        if not self._world.reads_images(token, project):
            raise _forbidden()
        return project

    def _repository(self, token: Token | None, parts: Sequence[str]) -> str:
        project = self._readable(token, parts[0])
        for row in self._repository_rows():
            if row["id"] == int(parts[1]) and row["project_id"] == project.id:
                return str(row["path"])
        raise _Refused(404, {"message": "404 Not found"})

    def _repository_rows(self) -> list[Row]:
        rows = []
        for path in self._store.repositories():
            project = self._world.project_of(path)
            if project is not None and project.registry:
                name = path.removeprefix(project.low).lstrip("/")
                rows.append({"id": self._world.repository_id(path), "name": name, "path": path, "project_id": project.id, "location": f"registry/{path}", "created_at": "2019-01-10T13:38:57.391Z", "status": None})  # fmt: skip
        return rows

    def _projects_in(self, token: Token | None, group: str) -> list[Row]:
        inside = [
            p for p in self._world.projects.values() if p.path.rpartition("/")[0].lower() == group.lower()
        ]
        return [self._project_row(project) for project in inside if self._world.sees(token, project)]

    def _project_row(self, project: Project) -> Row:
        owner = project.path.rpartition("/")[0]
        kind = "user" if owner in self._world.users else "group"
        return {"id": project.id, "path_with_namespace": project.path, "name": project.path.rpartition("/")[2], "namespace": {"id": 1, "path": owner, "full_path": owner, "kind": kind}, "container_registry_enabled": project.registry, "container_registry_access_level": "enabled" if project.registry else "disabled"}  # fmt: skip

    def _group_row(self, group: str) -> Row:
        return {"id": self._world.groups[group], "name": group, "path": group.rpartition("/")[2], "full_path": group, "parent_id": None}  # fmt: skip


class _Rows(Reply):
    """A listing, before it is cut into pages."""

    rows: list[Row]
    keyset: str


def _rows(rows: list[Row], keyset: str = "") -> _Rows:
    reply = _Rows(200)
    reply.rows, reply.keyset = rows, keyset
    return reply
