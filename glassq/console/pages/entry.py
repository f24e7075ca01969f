"""Signing in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.console.request import Page, Redirect
from glassq.console.roles import Actor, Role
from glassq.console.troubles import refused
from glassq.log import fields, logger

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest
    from glassq.console.troubles import Refused

log = logger("glassq.console")

_NEW_LINK = "`glassq console --link` prints a new one"
_USED = "this link was used, or is too old"


def login(console: Console, request: PageRequest) -> Answer:
    """Who would sign in here, and a button. Nothing is spent: programs look at links before people do."""
    code = request.params.get("code", "")
    who = _candidate(console, request, code)
    values = {"who": who, "code": code, "next": ours(request.params.get("next", "")), "todo": "", "may": False}
    if who is None:
        values["todo"] = f"{_USED}: {_NEW_LINK}" if code else f"open the link that the console printed; {_NEW_LINK}"
    elif who.role is Role.NOBODY:
        values["todo"] = _no_role(console, who)
    else:
        values["may"] = True
    document = {"who": who.name if who else None, "role": who.role.words if who else None, "todo": values["todo"]}
    return Page("login.html", "Sign in", document, values)


def sign_in(console: Console, request: PageRequest) -> Answer:
    """Begins a session. Raises Refused."""
    peer = f"{request.visitor.door} {request.visitor.name}" if request.visitor else "link"
    code = request.form.get("code", "")
    who = _candidate(console, request, code)
    # looked at before the tries: they are those of all users of the machine, and a link cannot be guessed
    if who is None or who.role is Role.NOBODY:
        raise _not_let_in(console, peer, who, code)
    if request.visitor is None and not console.links.spend(code):
        raise refused(403, _USED, _NEW_LINK)
    console.tries.succeeded(peer)
    log.info("signed in %s", fields(who=who.name, role=who.role.words, door=who.door))
    console.trail.signed_in(who)
    return Redirect(ours(request.form.get("next", "")), cookie=console.sessions.begin(who))


def _not_let_in(console: Console, peer: str, who: Actor | None, code: str) -> Refused:
    if wait := console.tries.blocked(peer):
        return refused(429, "too many tries to sign in failed", f"try again in {wait} s", wait)
    console.tries.failed(peer)
    log.warning("sign-in refused %s", fields(who=who.name if who else "", peer=peer))
    if who is None:
        return refused(403, _USED if code else "this door needs a link", _NEW_LINK)
    return refused(403, f"{who.name} may not come in here", _no_role(console, who))


def sign_out(console: Console, request: PageRequest) -> Answer:
    """Ends all sessions of whoever asks. Who that is, the door says, or a session."""
    if not request.actor.name:
        return Redirect("/login")
    log.info("signed out %s", fields(who=request.actor.name, door=request.actor.door))
    return Redirect("/login", cookie=console.sessions.end(request.actor))


def _candidate(console: Console, request: PageRequest, code: str) -> Actor | None:
    if request.visitor is not None:
        return request.visitor
    name = console.links.look(code) if code else ""
    return Actor(name, Role.OPERATOR, "link") if name else None


def _no_role(console: Console, who: Actor) -> str:
    settings = console.settings.console
    if who.door == "proxy":
        return f"neither [console] proxy_viewers nor proxy_operators names {who.name}"
    groups = [*settings.viewers, *settings.operators]
    may = (
        f"root lets them in: adduser {who.name} {groups[0]}" if groups else "[console] viewers and operators are empty"
    )
    return f"{who.name} is in no group that may come in; {may}"


def ours(path: str) -> str:
    """The path, if it is one of ours; else that of the first page. A path of two slashes is another host's."""
    fine = path.startswith("/") and not path.startswith(("//", "/\\", "/login")) and path.isprintable()
    return path if fine and path.isascii() else "/"
