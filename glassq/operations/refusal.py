"""Why a request is refused: the same with one thing changed is asked about again, until it is right."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from glassq.errors import GlassqError, PingRefused
from glassq.operations.words import moment, span
from glassq.sources import open_sources
from glassq.sources.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings
    from glassq.sources import HookRequest

# What headers with a proof are called.
_PROOFS = ("signature", "hmac", "token", "authorization", "auth", "webhook-id", "sign")
# The longest tolerance that is advised for resends with their first time, in seconds.
_RESENDS = 86_400


def diagnosis(settings: Settings, name: str, request: HookRequest, refused: PingRefused) -> list[str]:
    """What to do about it, most likely first; `settings` have this source alone."""
    match refused.reason:
        case "too old" | "too new":
            return list(_time(settings, name, request, refused))
        case "wrong signature" | "wrong token" | "no signature" | "no token":
            return list(_proof(settings, name, request, refused))
        case "path token":
            return [f"the request went to {_path(request)}: the sender's URL ends with the token of path_token_file"]
        case _:
            return []


def _time(settings: Settings, name: str, request: HookRequest, refused: PingRefused) -> Iterator[str]:
    skew = refused.skew or 0.0
    then = msgspec.structs.replace(request, now=request.now + skew)
    if not _verified(settings, then):
        yield "with the clock of its time it is refused as well: its signature is wrong besides"
        yield from _proof(settings, name, then, refused)
        return
    when = moment(datetime.fromtimestamp(round(then.now), UTC))
    where = "before" if skew < 0 else "after"
    yield f"the signature is right, and made {span(abs(skew))} {where} this time; try an old request with --now {when}"
    if -_RESENDS < skew < 0:
        yield (
            "where it came just now: is this machine's clock right (`glassq doctor`)? A sender that resends with the "
            f"first time needs a longer [sources.{name}] tolerance"
        )


def _proof(settings: Settings, name: str, request: HookRequest, refused: PingRefused) -> Iterator[str]:
    for words, other_settings, other_request in _variations(settings, name, request):
        if _verified(other_settings, other_request):
            yield words
            return
    there = sorted(header for header in request.headers if any(part in header for part in _PROOFS))
    named = ", ".join(there) or "none"
    if refused.reason.startswith("no "):
        yield f"headers of the request that may hold a proof: {named}; a proxy in between may drop some"
        return
    section = settings.sources[name]
    if section.secrets_file:
        file = f"the secret in {section.secrets_file} is not the sender's"
    else:
        file = "the secret is not the sender's"
    yield f"either {file}, or the body was changed on its way, or when it was saved: by a proxy, an editor, a log"
    if length := request.headers.get("content-length", ""):
        yield f"Content-Length is {length}, and the file has {len(request.body)} bytes of body"


# What to do, the settings and the request that would be right then.
_Variation = tuple[str, "Settings", "HookRequest"]


def _variations(settings: Settings, name: str, request: HookRequest) -> Iterator[_Variation]:
    for words, body in _bodies(bytes(request.body)):
        yield words, settings, msgspec.structs.replace(request, body=body)
    section = settings.sources[name]
    for url in _urls(request):
        words = f'the sender signs its URL, and that is {url}: [sources.{name}] url = "{url}"'
        changed = msgspec.structs.replace(section, url=url)
        yield words, msgspec.structs.replace(settings, sources={name: changed}), request
    for kind, preset in PRESETS.items():
        if kind != section.kind_of(name):
            words = f'it is a right ping of {preset.title}: [sources.{name}] kind = "{kind}"'
            changed = msgspec.structs.replace(section, kind=kind)
            yield words, msgspec.structs.replace(settings, sources={name: changed}), request


def _bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """The body as it may have been before somebody changed it."""
    saved = "the signature fits once {}: save the body as it came, byte for byte"
    if body.endswith(b"\n"):
        yield saved.format("the line end after the body is gone"), body.rstrip(b"\r\n")
    yield saved.format("a line end (LF) stands after the body"), body + b"\n"
    yield saved.format("a line end (CR LF) stands after the body"), body.rstrip(b"\r\n") + b"\r\n"
    unix = body.replace(b"\r\n", b"\n")
    yield saved.format("its line ends are CR LF"), unix.replace(b"\n", b"\r\n")
    yield saved.format("its line ends are LF"), unix
    rewritten = "the signature fits the same JSON written {}: something on the way, or in between, writes it anew"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    yield rewritten.format("without spaces"), json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    yield rewritten.format("in ASCII without spaces"), json.dumps(document, separators=(",", ":")).encode()
    yield rewritten.format("with spaces"), json.dumps(document).encode()


def _urls(request: HookRequest) -> Iterator[str]:
    """Where the sender may have sent it, by the request's own headers: good for advice alone."""
    for header in ("x-forwarded-host", "host"):
        if host := request.headers.get(header, ""):
            yield from (f"{scheme}://{host}" for scheme in ("https", "http"))


def _path(request: HookRequest) -> str:
    """The path without what may be a secret in it."""
    return "/".join(request.target.partition("?")[0].split("/")[:3])


def _verified(settings: Settings, request: HookRequest) -> bool:
    """Whether the one source of these settings takes the request for genuine."""
    try:
        (source,) = open_sources(settings)
        source.verify(request)
    except GlassqError:
        return False
    return True
