"""The WSGI app: which page a path has, who may ask for it, and what is answered to what goes wrong."""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import falcon

from glassq.console.guard import SAFE, Guard
from glassq.console.reading import JSON
from glassq.console.request import Page, PageRequest, Redirect
from glassq.console.roles import Actor, Role
from glassq.console.routes import LOGIN, ROUTES
from glassq.console.troubles import Problem, Refused, problem_of, refused
from glassq.errors import GlassqError
from glassq.http.liveness import LivenessResource
from glassq.http.log_limiter import LogLimiter
from glassq.http.problem import PROBLEM_JSON, problem
from glassq.ledger.activity import REFUSED, SIGN_IN
from glassq.log import fields, logger
from glassq.operations.document import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from glassq.console.console import Console
    from glassq.console.request import Answer, FormFields
    from glassq.console.routes import PageRoute

log = logger("glassq.console")

# The header with which a page asks for its own live parts.
LIVE = "HTTP_GLASSQ_LIVE"
# What app.js keeps true by itself: how long ago something was, and the time of the page.
_COUNTED = re.compile(rb"(?<=<span>)[^<]*(?=</span> <span class=\"utc\">|</span></time>)|<time [^>]*data-now.*?</time>")
_FOR_EVER = "public, max-age=31536000, immutable"


def create_app(
    console: Console, routes: Iterable[PageRoute] = ROUTES, tick: Callable[[], float] = time.monotonic
) -> falcon.App[Any, Any]:
    """The app of this console; `tick` is the clock of its limits, in seconds."""
    guard = Guard(console.url, console.doors, console.sessions, console.links, tick)
    app: falcon.App[Any, Any] = falcon.App(middleware=[guard])
    answers = _ErrorAnswers(console)
    app.add_error_handler(Exception, answers.bug)
    app.add_error_handler(falcon.HTTPError, answers.http)
    app.add_error_handler(GlassqError, answers.operation)
    app.add_error_handler(Refused, answers.refused)
    paths: dict[str, list[PageRoute]] = defaultdict(list)
    for route in routes:
        paths[route.path].append(route)
    for path, found in paths.items():
        app.add_route(path, PageResource(console, found))
    app.add_route("/static/{name}", StaticResource(console))
    app.add_route("/favicon.ico", IconResource(console))
    for path in ("/healthz", "/readyz"):
        app.add_route(path, LivenessResource())
    return app


class PageResource:
    """The pages of one path: one for each method."""

    def __init__(self, console: Console, routes: Iterable[PageRoute]) -> None:
        self._console = console
        for route in routes:
            # falcon looks for them by these names
            setattr(self, f"on_{route.method.lower()}", self._responder(route))

    def _responder(self, route: PageRoute) -> Callable[..., None]:
        def respond(req: falcon.Request, resp: falcon.Response, **path: str) -> None:
            _never_twin_a_post(req)
            actor = _admitted(self._console, route, req)
            if actor is None:
                _ask_who(self._console, req, resp)
                return
            _check_params(route, req.context.params)
            request = PageRequest(
                params=req.context.params,
                path=path,
                form=req.context.form,
                actor=actor,
                now=self._console.clock(),
                url=_url(req),
                visitor=req.context.visitor,
            )
            with self._place(route, actor):
                _write(self._console, route.page(self._console, request), request, req, resp)

        return respond

    def _place(self, route: PageRoute, actor: Actor) -> AbstractContextManager[None]:
        """One of the threads that make pages; what needs an operator is never kept waiting by those who look."""
        looks = route.method == "GET" and route.role is not Role.NOBODY
        return self._console.pages.one(f"{actor.door} {actor.name}") if looks else nullcontext()


def _never_twin_a_post(req: falcon.Request) -> None:
    if req.context.twin and req.method not in SAFE:
        raise falcon.HTTPNotFound


def _check_params(route: PageRoute, params: FormFields) -> None:
    """A name that is mistyped must not show all, where a part was asked for. Raises Refused."""
    for name in params if route.method == "GET" else ():
        if name not in route.params:
            there = f"this page has {', '.join(route.params)}" if route.params else "this page has none"
            raise refused(400, f"there is no parameter {name} here: {there}")


def _admitted(console: Console, route: PageRoute, req: falcon.Request) -> Actor | None:
    """Who asks, if that one has the route's role; None where it is not known yet. Raises Refused.

    The one place where roles are checked.
    """
    actor = _actor(console, req)
    if route.role is Role.NOBODY:
        return actor or req.context.visitor or Actor("", Role.NOBODY, "link")
    if actor is None:
        return None
    if actor.role < route.role:
        words = f"{actor.name} is {actor.role.words} here, and this needs {route.role.words}"
        raise refused(403, words, _groups_todo(console, actor, route.role))
    return actor


def _actor(console: Console, req: falcon.Request) -> Actor | None:
    """Whose session the request is of; None where it has none that counts at this door."""
    session = getattr(req.context, "session", None)
    return console.doors.admitted(session, req.context.visitor) if session else None


def _groups_todo(console: Console, actor: Actor, role: Role) -> str:
    settings = console.settings.console
    if actor.door == "proxy":
        return f"[console] proxy_{role.words}s names who is"
    groups = settings.operators if role is Role.OPERATOR else (*settings.viewers, *settings.operators)
    return (
        f"root adds them: adduser {actor.name} {groups[0]}" if groups else f"no group of [console] makes a {role.words}"
    )


def _ask_who(console: Console, req: falcon.Request, resp: falcon.Response) -> None:
    """Somebody without a session: a person is led to the login, a program is told."""
    todo = "sign in at /login"
    if req.context.twin or req.method not in SAFE:
        raise refused(401, "you have not signed in, or your session is over", todo)
    if req.env.get("HTTP_SEC_FETCH_SITE") == "cross-site":
        # The browser keeps our cookie from a link on another site. It comes with the page's own reload.
        _html(resp, console.html("again.html", {"title": "glassq", "to": console.base + _url(req)}, None))
        return
    resp.status = 303
    resp.location = f"{console.base}{LOGIN}?next={quote(_url(req), safe='')}"


def _write(console: Console, answer: Answer, request: PageRequest, req: falcon.Request, resp: falcon.Response) -> None:
    session, live = req.context.session, LIVE in req.env
    # a page that refreshes itself is no sign of life
    renewed = console.sessions.renewed(session) if session is not None and not live else ""
    if isinstance(answer, Page) and answer.instead and not req.context.twin:
        answer = Redirect(answer.instead)
    if isinstance(answer, Redirect):
        resp.status = 303
        resp.location = console.base + answer.to
        renewed = answer.cookie or renewed
    elif isinstance(answer, Page):
        resp.status = answer.status
        if req.context.twin:
            resp.content_type, resp.text = JSON, to_json(_document(answer)) + "\n"
        else:
            _html(resp, _page(console, answer, request, _actor(console, req)), req)
    else:
        resp.content_type, resp.data = answer.content_type, _encoded(answer.text)
        if answer.file:
            resp.downloadable_as = answer.file
    if renewed:
        resp.append_header("Set-Cookie", renewed)


def _document(answer: Page) -> object:
    return answer.document() if callable(answer.document) else answer.document


def _page(console: Console, answer: Page, request: PageRequest, actor: Actor | None) -> str:
    values = {"title": answer.title, "request": request, **answer.values}
    return console.html(answer.template, values, actor, request.url)


def _html(resp: falcon.Response, text: str, req: falcon.Request | None = None) -> None:
    """The page. A browser that has it, but for how long ago things were, is not sent it again."""
    data = _encoded(text)
    tag = hashlib.blake2b(_COUNTED.sub(b"", data), digest_size=12).hexdigest()
    resp.etag = f'W/"{tag}"'
    if req is not None and req.env.get("HTTP_IF_NONE_MATCH", "").strip('W/"') == tag:
        resp.status = 304
    else:
        resp.content_type, resp.data = falcon.MEDIA_HTML, data


def _encoded(text: str) -> bytes:
    """A text may hold what a sender wrote: lone surrogates are written out."""
    return text.encode("utf-8", "backslashreplace")


def _url(req: falcon.Request) -> str:
    """Path and query of a request, without what a proxy's path begins with, and without the ending of a twin."""
    path = quote(req.path, safe="/:@!$&'()*+,;=-._~")
    return f"{path}?{req.query_string}" if req.query_string else path


class StaticResource:
    """GET /static/NAME.HASH.EXT"""

    def __init__(self, console: Console) -> None:
        self._assets = console.assets

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """The file; its name changes with its content."""
        asset = self._assets.get(name)
        if asset is None:
            raise falcon.HTTPNotFound
        resp.content_type = asset.content_type
        resp.set_header("Cache-Control", _FOR_EVER)
        resp.set_header("Vary", "Accept-Encoding")
        resp.data = asset.data
        if "gzip" in req.env.get("HTTP_ACCEPT_ENCODING", ""):
            resp.data = asset.zipped
            resp.set_header("Content-Encoding", "gzip")


class IconResource:
    """GET /favicon.ico: browsers ask for it, whatever a page says."""

    def __init__(self, console: Console) -> None:
        self._icon = console.assets.named("icon.svg")

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The icon of a console where nothing is wrong."""
        resp.content_type = self._icon.content_type
        resp.data = self._icon.data


class _ErrorAnswers:
    """Answers errors: with a page for people, by RFC 9457 for machines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._limiter = LogLimiter()

    def refused(self, req: falcon.Request, resp: falcon.Response, error: Refused, _params: object) -> None:
        """Who is not let in, or asks for what cannot be."""
        if error.problem.status == 403:
            self._note(req, error.problem)
        if error.problem.status != 404 and (left_out := self._limiter.admit()) is not None:
            visitor = getattr(req.context, "visitor", None)
            who = visitor.name if visitor else req.remote_addr
            told = {"status": error.problem.status, "why": error.problem.words, "path": req.path}
            log.warning("refused %s", fields(who=who, method=req.method, **told, **left_out))
        self._answer(req, resp, error.problem)

    def _note(self, req: falcon.Request, told: Problem) -> None:
        """Who may not come in, or may not do what it asks for, stands in the trail."""
        visitor = getattr(req.context, "visitor", None)
        actor = _actor(self._console, req) or visitor
        asked = f"{req.method} {req.path}" + (f" from {req.remote_addr}" if visitor is None else "")
        did = SIGN_IN if req.path == LOGIN else REFUSED
        self._console.trail.refused(actor, asked, told.words, did)

    def operation(self, req: falcon.Request, resp: falcon.Response, error: GlassqError, _params: object) -> None:
        """What was asked for cannot be done, or the queue cannot be asked."""
        self._answer(req, resp, problem_of(error))

    def http(self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: object) -> None:
        """Falcon's own errors (404, 405 ...), without their details: some quote the request."""
        if error.headers:
            resp.set_headers(error.headers)
        words = {404: "there is no such page", 405: "this page cannot be asked that way"}
        self._answer(req, resp, Problem(error.status_code, words.get(error.status_code, "this cannot be answered")))

    def bug(self, req: falcon.Request, resp: falcon.Response, error: Exception, _params: object) -> None:
        """A bug of ours."""
        log.error("bug in glassq-console", exc_info=error)
        self._answer(req, resp, Problem(500, "this is a bug of ours", "the log of glassq-console has it"))

    def _answer(self, req: falcon.Request, resp: falcon.Response, told: Problem) -> None:
        console = self._console
        resp.status = told.status
        if told.retry_after:
            resp.set_header("Retry-After", str(told.retry_after))
        if _wants_json(req):
            resp.content_type = PROBLEM_JSON
            resp.data = problem(told.status, told.title, console.adapt(told.detail))
            return
        words, todo = console.adapt(told.words), console.adapt(told.todo)
        values = {"title": told.title, "status": told.status, "words": words, "todo": todo}
        values["candidates"] = [(each.partition(" ")[0], each) for each in told.candidates]
        _html(resp, console.html("error.html", values, _actor(console, req)))


def _wants_json(req: falcon.Request) -> bool:
    accepted = req.env.get("HTTP_ACCEPT", "")
    return getattr(req.context, "twin", False) or ("html" not in accepted and "json" in accepted)
