"""Why a request is refused: the same with one thing changed is asked about again, until it is right."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import GlassqError
from glassq.operations.words import moment, span
from glassq.sources.opening import open_source
from glassq.sources.places import parse_spec
from glassq.sources.presets import PRESETS
from glassq.sources.schemes.hmac import Hmac

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.errors import PingRefused
    from glassq.settings import Settings, SourceSettings
    from glassq.sources import HookRequest

# What headers with a proof are called.
_PROOFS = ("signature", "hmac", "token", "authorization", "auth", "webhook-id", "sign")
# The longest tolerance that is advised for resends with their first time, in seconds.
_RESENDS = 86_400


def diagnosis(
    settings: Settings, name: str, request: HookRequest, refused: PingRefused, whole: bytes | None = None
) -> list[str]:
    """What to do about it, most likely first; `settings` have this source alone.

    `whole` is the body as it was saved, where the request has less of it.
    """
    case = RefusedRequest(settings, name, request, bytes(request.body) if whole is None else whole)
    match refused.reason:
        case "too old" | "too new":
            return list(_time(case, refused.skew or 0.0))
        case "wrong signature" | "wrong token":
            return list(_proof(case))
        case "no signature" | "no token":
            return list(_nothing(case))
        case "path token":
            end = "with the token of path_token_file" if settings.sources[name].path_token_file else f"at /hooks/{name}"
            return [f"the request went to {_path(request)}: the sender's URL ends {end}"]
        case _:
            return []


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that is refused by the one source of some settings. `whole` is all of its body."""

    settings: Settings
    name: str
    request: HookRequest
    whole: bytes

    @property
    def section(self) -> SourceSettings:
        """The section of the source."""
        return self.settings.sources[self.name]

    def with_request(self, **changes: Any) -> RefusedRequest:
        """The same with another request."""
        return replace(self, request=msgspec.structs.replace(self.request, **changes))

    def with_section(self, **changes: Any) -> RefusedRequest:
        """The same with another section."""
        section = msgspec.structs.replace(self.section, **changes)
        return replace(self, settings=msgspec.structs.replace(self.settings, sources={self.name: section}))

    def is_genuine(self) -> bool:
        """Whether the source takes the request for genuine."""
        try:
            open_source(self.settings, self.name).verify(self.request)
        except GlassqError:
            return False
        return True


def _time(case: RefusedRequest, skew: float) -> Iterator[str]:
    now = case.request.now + skew
    then = case.with_request(now=now)
    if not then.is_genuine():
        yield "with the clock of its time it is refused as well: its signature is wrong besides"
        yield from _proof(then)
        return
    try:
        when = moment(datetime.fromtimestamp(round(now), UTC))
    except (ValueError, OverflowError, OSError):
        # thousands of years away: perhaps in another unit
        when = str(round(now))
    where = "before" if skew < 0 else "after"
    yield f"the signature is right, and made {span(abs(skew))} {where} this time; try an old request with --now {when}"
    if -_RESENDS < skew < 0:
        yield (
            "where it came just now: is this machine's clock right (`glassq doctor`)? A sender that resends with the "
            f"first time needs a longer [sources.{case.name}] tolerance"
        )


def _proof(case: RefusedRequest) -> Iterator[str]:
    for words, other in _variations(case):
        if other.is_genuine():
            yield words
            return
    file = case.section.secrets_file or case.section.verify_tokens_file
    secret = f"no secret in {file} is the sender's" if file else "the secret is not the sender's"
    yield f"either {secret}, or the body was changed on its way, or when it was saved: by a proxy, an editor, a log"


def _nothing(case: RefusedRequest) -> Iterator[str]:
    """The proof is not where this kind has it."""
    for words, other in _kinds(case):
        if other.is_genuine():
            yield words
            return
    known = _signature_headers()
    there = [header for header in case.request.headers if header in known or any(part in header for part in _PROOFS)]
    named = ", ".join(f"{name} (as {' or '.join(known[name])} has it)" if name in known else name for name in there)
    yield f"headers of the request that may hold a proof: {named or 'none; a proxy in between may drop them'}"


# What to do, and what would be right then.
_Variation = tuple[str, RefusedRequest]


def _variations(case: RefusedRequest) -> Iterator[_Variation]:
    for words, body in _bodies(case.whole):
        yield words, case.with_request(body=body)
    for url in _urls(case.request):
        words = f'the sender signs its URL, and that is {url}: [sources.{case.name}] url = "{url}"'
        yield words, case.with_section(url=url)
    yield from _kinds(case)


def _kinds(case: RefusedRequest) -> Iterator[_Variation]:
    for kind, preset in PRESETS.items():
        if kind != case.section.kind_of(case.name):
            words = f'it is a right ping of {preset.title}: [sources.{case.name}] kind = "{kind}"'
            yield words, case.with_section(kind=kind)


def _signature_headers() -> dict[str, list[str]]:
    """The headers that hold signatures, and up to two kinds that have each."""
    found: dict[str, list[str]] = {}
    for kind, preset in PRESETS.items():
        for spec in map(parse_spec, preset.scheme.signature if isinstance(preset.scheme, Hmac) else ()):
            for place in (place for each in spec for place in each if place.kind == "header"):
                found.setdefault(place.name, []).append(kind)
    return {"webhook-signature": ["standard"]} | {name: kinds[:2] for name, kinds in found.items()}


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
