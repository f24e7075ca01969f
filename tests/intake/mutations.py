"""Right, signed pings of nearly all kinds, ways to spoil one, and whether what came of it is still genuine.

The pings are the vectors of tests/sources, so nothing here is signed by the code under test.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from glassq.errors import SettingsError
from glassq.settings import parse, toml_value
from glassq.sources import open_sources
from tests.intake.wire import request
from tests.sources.conftest import VECTORS, request_of

if TYPE_CHECKING:
    import random
    from pathlib import Path

# These need certificates, or an address that is not /hooks/NAME.
_ELSEWHERE = {"sns", "paypal", "pubsub", "oidc"}
# Their proof covers no body, a part of it, or what stands in it in whatever form.
UNSIGNED = {"adyen", "mailgun", "graph", "okta", "token", "alertmanager", "postmark", "chargebee", "cloudevents"}
UNSIGNED |= {"gitlab", "gitea"}
# Headers that prove something. Others may change: what they say is not signed.
_PROVES = re.compile(r"sign|hmac|time|token|auth|secret|date|(?:webhook|svix|message)-id")
_NOT_SIGNED = {"sentry-hook-timestamp", "linear-timestamp", "content-type", "ce-time"}
_LONG = re.compile(r"[A-Za-z0-9+/_-]{12,}=*|\d{5,}|dummy")
# The vectors were signed long ago.
_TOLERANCE = 'tolerance = "1000000h"\n'


class Ping(NamedTuple):
    """A right ping; `data` are the bytes of its request to /hooks/NAME."""

    name: str
    kind: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> bytes:
        return request(
            self.body,
            *(f"{name}: {value}" for name, value in self.headers.items()),
            line=f"POST /hooks/{self.name} HTTP/1.1",
            kind=None,
        )


def pings() -> list[Ping]:
    """All that can be sent to a source of their own without more."""
    found = []
    for vector in VECTORS:
        plain = vector["valid"] and vector["method"] == "POST" and "answer" not in vector and "url" not in vector
        if plain and vector["kind"] not in _ELSEWHERE:
            found.append(Ping(vector["name"], vector["kind"], vector["headers"], bytes(request_of(vector).body)))
    return found


def sections(directory: Path) -> str:
    """The sections of glassq.toml for these pings' sources; their secrets go into files in `directory`."""
    names = {ping.name for ping in pings()}
    return "".join(_section(vector, directory) for vector in VECTORS if vector["name"] in names)


def _section(vector: dict[str, Any], directory: Path) -> str:
    secrets = directory / f"{vector['name']}.secrets"
    secrets.write_text("\n".join(vector["secrets"]) + "\n")
    keys = {"kind": vector["kind"], "secrets_file": str(secrets), "max_body": "32KiB", **vector.get("settings", {})}
    lines = [f"{key} = {toml_value(value)}\n" for key, value in keys.items()]
    text = f"[sources.{vector['name']}]\n{''.join(lines)}"
    try:
        open_sources(parse(text + _TOLERANCE, "glassq.toml"))
    except SettingsError:
        return text
    return text + _TOLERANCE


def spoil(ping: Ping, others: list[Ping], chance: random.Random) -> bytes:
    """The request with something changed in it, of whatever kind."""
    headers, body, line = [*ping.headers.items()], ping.body, f"POST /hooks/{ping.name} HTTP/1.1"
    more: list[str] = []
    act = chance.randrange(10)
    if act < 3:
        body = _spoiled(body, chance)
    elif act < 6 and headers:
        at = chance.randrange(len(headers))
        headers[at : at + 1] = _header(*headers[at], chance.choice(others), chance)
    elif act == 6:
        body = chance.choice(_BODIES)(body)
    elif act == 7:
        more = [chance.choice(_MORE)]
    elif act == 8:
        line = chance.choice(_LINES).replace("NAME", ping.name)
    else:
        return _spoiled(ping.data, chance)
    return request(body, *(f"{name}: {value}" for name, value in headers), *more, line=line, kind=None)


_BODIES = (
    lambda body: b"",
    lambda body: b" " + body,
    lambda body: body + b"\r\n",
    lambda body: body[:-1],
    lambda body: body * 2,
    lambda body: b"\xef\xbb\xbf" + body,
    lambda body: b"[" * 5000,
    lambda body: b'{"a":' * 3000,
    lambda body: b"null",
    lambda body: b"\xff\xfe\x00",
    lambda body: b"payload=" + body,
    lambda body: body.replace(b'"', b"'"),
    lambda body: body + b"x" * (32 << 10),
)
_MORE = (
    "Content-Encoding: gzip",
    "Content-Encoding: identity",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Content-Type: text/html",
    "Content-Type: application/x-www-form-urlencoded",
    "Content-Type: multipart/form-data; boundary=x",
    "Content-Length: 3",
    "X-Forwarded-For: 127.0.0.1",
    "Webhook-Id: other",
    "Webhook-Timestamp: 1",
    "X-Hub-Signature: sha1=00",
    "X-Hub-Signature-256: sha256=00",
    "Authorization: Bearer x",
    "Connection: close",
)
_LINES = (
    "GET /hooks/NAME HTTP/1.1",
    "HEAD /hooks/NAME HTTP/1.1",
    "OPTIONS /hooks/NAME HTTP/1.1",
    "PUT /hooks/NAME HTTP/1.1",
    "POST /hooks/NAME/ HTTP/1.1",
    "POST /hooks/NAME/x HTTP/1.1",
    "POST /hooks/NAME?validationToken=x HTTP/1.1",
    "POST /hooks/NAME?challenge=x&hub.challenge=%0d%0a HTTP/1.1",
    "GET /hooks/NAME?challenge=%00%ff HTTP/1.1",
    "GET /hooks/NAME?crc_token=x HTTP/1.1",
    "GET /hooks/NAME?hub.mode=subscribe&hub.verify_token=&hub.challenge=x HTTP/1.1",
    "POST /hooks/NAME HTTP/1.0",
    "POST /hooks/NAME%20 HTTP/1.1",
)


def _header(name: str, value: str, other: Ping, chance: random.Random) -> list[tuple[str, str]]:
    act = chance.randrange(9)
    if act == 0:
        return []
    if act == 1:
        return [(name, value), (name, value)]
    if act == 2:
        return [(name, ""), (name, value)][: chance.randint(1, 2)]
    if act == 3:
        return [(name, chance.choice([*other.headers.values(), "null", "-1", "1e309", "9" * 400, "é\xff", "=", ",,;"]))]
    if act == 4:
        return [(name.swapcase(), value)]
    if act == 5:
        return [(name, value.swapcase())]
    if act == 6:
        return [(name, value * 2)]
    return [(name, _spoiled(value.encode("latin-1"), chance).decode("latin-1").strip())]


def _spoiled(data: bytes, chance: random.Random) -> bytes:
    """With one byte changed, left out, or put in."""
    at = chance.randrange(len(data) + 1)
    new = bytes([chance.choice([chance.randrange(256), chance.choice(b'0aA=,:;."{}[]\\ \t\r\n\x00\xff')])])
    return chance.choice([data[:at] + new + data[at + 1 :], data[:at] + data[at + 1 :], data[:at] + new + data[at:]])


def may_be_genuine(ping: Ping, sent: bytes) -> bool:
    """Whether all that the sender has signed is there unchanged, and its signature too, perhaps among others."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    _, *lines = head.decode("latin-1").split("\r\n")
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        found[name] = f"{found[name]}, {value.strip()}" if name in found else value.strip()
    length = int(found.get("content-length") or 0)
    if rest[:length] != ping.body and ping.kind not in UNSIGNED:
        return False
    proving = {name.lower(): value for name, value in ping.headers.items() if _proves(name.lower())}
    held = {name: _holds(value, found.get(name, "")) for name, value in proving.items()}
    # one of several headers with a signature is enough
    signatures = [held.pop(name) for name in proving if re.search("sign(?!.*time)", name)]
    return all(held.values()) and (any(signatures) or not signatures)


def _proves(name: str) -> bool:
    return bool(_PROVES.search(name)) and name not in _NOT_SIGNED


def _holds(value: str, given: str) -> bool:
    """Whether a header still has the value: one of several signatures, and each number, as of a time."""
    parts = _LONG.findall(value) or [value.split()[-1]]
    numbers = [part for part in parts if part.isdigit() and len(part) < 20]
    others = [part for part in parts if part not in numbers] or numbers
    return all(part in given for part in numbers) and any(_stands(part, given) for part in others)


def _stands(part: str, given: str) -> bool:
    if part in given:
        return True
    if re.fullmatch(r"[0-9a-f]+", part):
        # what a digest says is the same in capital letters
        return part in given.lower()
    # the last character of base64 has bits that say nothing
    return any(_bytes(part) == _bytes(word) for word in re.findall(r"[A-Za-z0-9+/_-]{12,}", given))


def _bytes(text: str) -> bytes:
    bare = re.sub(r"[^A-Za-z0-9+/]", "", text.translate(str.maketrans("-_", "+/")))
    return base64.b64decode(bare[: len(bare) - (len(bare) % 4 == 1)] + "=" * (-len(bare) % 4))
