"""Writes the list of senders in docs/sources.md, or in the file that is named: `python tools/senders_docs.py [FILE]`.

All of it comes from the table of presets (glassq/sources/presets).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.operations.kinds import kinds
from glassq.sources.schemes.combined import Once, TokenOrStandard
from glassq.sources.schemes.hmac import Hmac
from glassq.sources.schemes.public_key import PublicKey
from glassq.sources.schemes.token import ShownToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.operations.kinds import KindOfSource
    from glassq.sources.presets.preset import Preset

PAGE = Path(__file__).parent.parent / "docs" / "sources.md"
BEGIN, END = "<!-- senders: ", "<!-- end of senders -->"
DUPLICATES = {
    "event_id": "a ping with the same `event_id` is the same event",
    "sha256": "a ping with the same body is the same event (`event_id` is its digest)",
    "": "not told: tell the items apart in the handler",
}
# How a scheme is called that has no more to say.
PROOFS = {
    "Standard": "Standard Webhooks: HMAC-SHA256 (v1), or ed25519 (v1a), of `{id}.{timestamp}.{body}`",
    "Twilio": "HMAC-SHA1 of the whole URL and the sorted form; of JSON its SHA-256 in the URL",
    "AdyenFields": "HMAC-SHA256 of eight fields of each item",
    "ClientState": "the `clientState` of every item",
    "VerifyToken": "the `verifyToken` in the body",
    "Sns": "a signature by Amazon's certificate (RSA), which is fetched",
    "PayPal": "a signature by PayPal's certificate (RSA) of time, webhook and the body's CRC-32; it is fetched",
    "GoogleToken": "a token of Google's (JWT), for your `audience` and of your `account`; keys are fetched",
    "Oidc": "a token of the issuer's (JWT), for your `audience` and of your `account`; keys are fetched",
}


def page(text: str) -> str:
    """The page with the list made anew."""
    head, mark, rest = text.partition(BEGIN)
    line, _, rest = rest.partition("\n")
    _, end, tail = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"expected the marks {BEGIN!r} and {END!r}")
    return "".join([head, mark, line, "\n\n", "\n".join(_list()), "\n\n", end, tail])


def _list() -> Iterator[str]:
    rows = sorted(kinds(), key=lambda kind: kind.preset.title.lower())
    yield "| sender | kind | |"
    yield "|---|---|---|"
    for kind in rows:
        title, known = kind.preset.title, "" if kind.preset.verified else "unverified"
        yield f"| [{title}](#{_anchor(title)}) | `{kind.preset.name}` | {known} |"
    for kind in rows:
        yield from ("", *_section(kind))


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(each for each in title.lower() if each.isalnum() or each in " -_").replace(" ", "-")


def _section(kind: KindOfSource) -> Iterator[str]:
    preset = kind.preset
    yield f"### {preset.title}"
    yield ""
    if not preset.verified:
        yield "*Unverified*: its rule was read, and no signed ping of it was at hand."
        yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {_cell(value)} |" for name, value in _facts(preset) if value)
    yield ""
    yield "```toml"
    yield kind.section
    yield "```"


def _facts(preset: Preset) -> Iterator[tuple[str, str]]:
    yield "URL", f"`https://your.host/hooks/{preset.name}`"
    yield "where to enter it", preset.enter
    yield "secret", preset.secrets
    yield "proof", _proof(preset)
    yield "time", f"signed; at most {preset.tolerance:g} s from our clock, or `tolerance`" if preset.tolerance else ""
    yield "events", preset.events
    yield "labels", ", ".join(_labels(preset))
    yield "duplicates", DUPLICATES[preset.dedupe]
    yield "headers for handlers", ", ".join(f"`{name}`" for name in preset.keep)
    yield "challenges", ", ".join(f"`{name}`, answered at once" for name in preset.challenges)
    yield "answer", f"{preset.accept.status}" if preset.accept.status != 200 else ""
    yield "largest body", _size(preset.max_body)
    yield "how it sends, and what it does when it is refused", preset.limits
    yield "its manual", f"<{preset.docs}>" if preset.docs else ""


def _labels(preset: Preset) -> Iterator[str]:
    named = [("event", preset.event), ("action", preset.action), ("event_id", preset.event_id), *preset.labels]
    return (f"`{name}` from `{place}`" for name, place in named if place)


def _proof(preset: Preset) -> str:
    scheme = preset.scheme
    if isinstance(scheme, Once):
        return f"{_hmac(scheme.proof)}; each `{scheme.unique}` is taken once"
    if isinstance(scheme, TokenOrStandard):
        return f"{_token(scheme.token)}; or {PROOFS['Standard']}"
    if isinstance(scheme, Hmac):
        return _hmac(scheme)
    if isinstance(scheme, ShownToken):
        return _token(scheme)
    if isinstance(scheme, PublicKey):
        return f"a signature by the sender's private key ({scheme.algorithm}) in `{scheme.signature}`"
    return PROOFS[type(scheme).__name__]


def _hmac(scheme: Hmac) -> str:
    hashes = " or ".join(each.upper() for each in scheme.named or (scheme.hash,))
    headers = ", ".join(f"`{each}`" for each in scheme.signature)
    before = f" behind `{scheme.prefix}`" if scheme.prefix else ""
    return f"HMAC-{hashes} of `{scheme.signed}`, in {scheme.encoding}{before}, in {headers}"


def _token(scheme: ShownToken) -> str:
    return f"the secret itself, by `{scheme.place}`; it does not cover the body"


def _size(size: int) -> str:
    if not size:
        return "`[intake] max_body`"
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(PAGE.read_text("utf-8")), "utf-8")
