"""What every request must be, whatever its path and whoever asks; and the headers of every answer.

| a request                                       | answer                                                             |
|-------------------------------------------------|--------------------------------------------------------------------|
| is malformed                                    | 400, 411                                                           |
| is for another host (DNS rebinding)             | 421                                                                |
| changes something, and is not of our own pages  | 403: Sec-Fetch-Site must be same-origin; without it, Origin ours   |
| is larger than MAX_BODY                         | 413                                                                |
| has a body that is neither a form nor JSON      | 415: what other sites can send without asking is not read          |
| is one too many of this person, or of strangers | 429; never one that brings a link that signs in                    |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glassq.console.limits import RequestRate
from glassq.console.reading import FORM, JSON, kind_of, pairs, read_fields
from glassq.console.request import FormFields
from glassq.console.troubles import refused
from glassq.http.strict import malformed

if TYPE_CHECKING:
    from collections.abc import Callable

    import falcon

    from glassq.console.doors import Doors
    from glassq.console.links import Links
    from glassq.console.sessions import Sessions

# In bytes: a body of the largest job as a form has it, with an indented line for each value.
MAX_BODY = 256 << 10
# Requests a second of one person, and how many may come at once: a page with all that belongs to it.
PER_SECOND, AT_ONCE = 20.0, 40.0
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# The ending of a page's twin.
TWIN = ".json"
# Who asks for these is not asked who it is, nor how often: they say nothing of the queue.
OPEN = ("/static/", "/favicon.ico", "/healthz", "/readyz")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Falcon's middleware. What comes after it finds in `req.context`: twin, visitor, session, params, form."""

    def __init__(self, url: str, doors: Doors, sessions: Sessions, links: Links, tick: Callable[[], float]) -> None:
        """`url` is [console] url, "" where nothing stands before us; `tick` is a clock, in seconds."""
        public = urlsplit(url)
        self._origin = f"{public.scheme}://{public.netloc}".lower() if url else ""
        self._hosts = frozenset({*_LOCAL, *([_host(public.netloc)] if url else ())})
        self._prefix = public.path.rstrip("/")
        self._doors = doors
        self._sessions = sessions
        self._links = links
        self._rate = RequestRate(PER_SECOND, AT_ONCE, tick)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises Refused."""
        context = req.context
        context.twin, context.visitor, context.session = False, None, None
        self._find_path(req)
        self._check_form(req)
        self._check_host(req)
        if req.path.startswith(OPEN):
            return
        if req.method not in SAFE:
            self._check_origin(req)
            _check_body(req)
        context.visitor = self._doors.visitor(req.env)
        context.session = self._sessions.read(req.get_cookie_values(self._sessions.cookie_name) or ())
        context.params = pairs(req.query_string)
        context.form = FormFields() if req.method in SAFE else read_fields(req)
        if wait := self._rate.admit(self._asker(req)):
            raise refused(429, f"more than {PER_SECOND:g} requests a second", "wait a moment", wait)

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool) -> None:
        """Falcon calls it for each answer, errors too. What an answer says itself stays."""
        for name, value in HEADERS.items():
            if resp.get_header(name) is None:
                resp.set_header(name, value)

    def _find_path(self, req: falcon.Request) -> None:
        """What a proxy's path begins with is left out, and the ending of a twin. Raises Refused."""
        if req.path.startswith("//"):
            # a browser takes what follows for a host
            raise refused(400, "a path begins with one slash")
        if self._prefix and (req.path == self._prefix or req.path.startswith(f"{self._prefix}/")):
            req.path = req.path[len(self._prefix) :] or "/"
        if req.path.endswith(TWIN) and not req.path.startswith(OPEN):
            req.context.twin = True
            req.path = req.path.removesuffix(TWIN)

    def _check_form(self, req: falcon.Request) -> None:
        if (found := malformed(req.env)) is not None:
            raise refused(found.status, found.title, found.detail)

    def _check_host(self, req: falcon.Request) -> None:
        if _host(req.env.get("HTTP_HOST", "")) not in self._hosts:
            hosts = ", ".join(sorted(self._hosts))
            raise refused(421, "this console is not at the host that you asked", f"its hosts are {hosts}")

    def _check_origin(self, req: falcon.Request) -> None:
        """A page of another site must not press our buttons."""
        site = req.env.get("HTTP_SEC_FETCH_SITE")
        if site is not None:
            if site != "same-origin":
                raise refused(403, "this request comes from a page of another site", "open the console itself")
            return
        origin = req.env.get("HTTP_ORIGIN")
        if origin is None:
            todo = "a program sends `Sec-Fetch-Site: same-origin`, and a proxy must leave both as they are"
            raise refused(
                403, "a request that changes something says by Origin or Sec-Fetch-Site where it is from", todo
            )
        ours = {f"http://{req.env.get('HTTP_HOST', '')}".lower(), self._origin}
        if not origin or origin.lower() not in ours:
            todo = "where a proxy stands before it, that must keep Host, and [console] url must be its URL"
            raise refused(403, "this request comes from another origin than the console's", todo)

    def _asker(self, req: falcon.Request) -> str:
        context = req.context
        # who looks far too often can press Stop all the same
        does = "looks" if req.method in SAFE else "acts"
        # Not by session: whoever may sign in begins as many as they like. But those without one are counted apart:
        # programs that use somebody's forwarded port keep nobody out who has signed in.
        if context.session is not None and self._doors.admitted(context.session, context.visitor) is not None:
            return f"{context.session.door} {context.session.name} {does}"
        if context.visitor is not None:
            return f"{context.visitor.door} {context.visitor.name} has no session"
        # at this door all users of the machine have one address: none of them may keep out who has a link
        name = self._links.look({**context.params, **context.form}.get("code", ""))
        return f"link of {name}" if name else f"address {req.remote_addr}"


def _check_body(req: falcon.Request) -> None:
    if (req.content_length or 0) > MAX_BODY:
        raise refused(413, f"more than {MAX_BODY >> 10} KiB")
    if req.content_length and kind_of(req) not in (FORM, JSON):
        raise refused(415, f"expected {FORM} or {JSON}")


def _host(text: str) -> str:
    """The host of a Host header, without its port."""
    head, separator, port = text.rpartition(":")
    return (head if separator and (port.isdecimal() or not port) else text).lower()
