"""The envelope around one ping, and its form inside a job.

A job's bytes are three parts, readable by anybody who can peek a job:

    glassq/1 8d3f0a12\\n          format and CRC-32 (hex) of all that follows
    {"id":"0199...",...}\\n       the header: one line of JSON
    {"collection":"timeline"...  the ping's raw body, untouched, to the end

The checksum is there because beanstalkd has none: a flipped bit on disk is served as a normal job.
When you add a field to Header, give it a default (older jobs lack it). When you change or remove one, raise
VERSION and teach `decode` both forms: jobs of the old one may lie buried for months.
"""

from __future__ import annotations

import random
import time
import zlib
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from glassq.errors import DamagedDelivery

VERSION = 1
MAGIC = b"glassq/%d " % VERSION

# beanstalkd's own default limit for one job, in bytes (-z).
MAX_JOB = 65_535
# The limit that our own beanstalkd is started with, for tasks with large payloads (App Engine takes 100 KB).
BIG_JOB = 131_072
# A story gets at least so much room beside the body; where MAX_JOB leaves less, the job is a big one.
MIN_ROOM = 8_192
# Of the failed attempts the first and the latest few tell the story; the rest repeat it.
MAX_EVIDENCE = 12
# The end of a traceback names the line that failed, in characters.
MAX_TRACEBACK = 2_000
# Of any other text that a failure brings with it, in characters.
MAX_MESSAGE = 500
# Of what a handler tells beside its reason, in bytes of JSON.
MAX_DETAIL = 8_192

# A time without its zone would be another one on the next host.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one attempt failed.

    `at` is when it ended; `duration` is in seconds; `error` is the exception's type (or what ended the process);
    `signal` is set when a signal ended it. `detail` is what the handler told beside its reason.
    """

    attempt: int
    outcome: str
    error: str
    message: str
    at: Moment
    duration: float
    host: str
    traceback: str = ""
    signal: str = ""
    detail: dict[str, Any] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What we know about a ping, and its story so far: all of a delivery but the ping's body.

    `id`       ours, unique and sortable by time (a UUID of version 7)
    `source`   who sent the ping: "mirror"
    `received` when intake took it (UTC)
    `labels`   what routes can match, taken from the ping by its source, such as {"collection": "timeline"}
    `attempt`  the number of the attempt that runs now, or is next; the first is 1
    `failures` how many attempts have been taken from the budget since it was last fresh
    `waits`    how many times a handler said `Retry(counts=False)` in a row
    `tried`    when the first attempt of the present budget began; None before it
    `lost`     attempts that ended with their process, in jobs before this one
    `buried`   the reason, while it lies buried
    """

    id: str
    source: str
    received: Moment
    labels: dict[str, str] = {}
    attempt: int = 1
    failures: int = 0
    waits: int = 0
    tried: Moment | None = None
    lost: int = 0
    buried: str = ""
    evidence: tuple[Evidence, ...] = ()

    def age(self, now: datetime | None = None) -> float:
        """Seconds since intake took the ping; never negative, whatever the clocks say."""
        return max(0.0, ((now or datetime.now(UTC)) - self.received).total_seconds())


class Delivery(Header, frozen=True, kw_only=True):
    """One ping on its way: the header, and `body`, the ping's raw body."""

    body: bytes


_encode_header = msgspec.json.Encoder().encode
_decode_header = msgspec.json.Decoder(Header).decode
_FIELDS = Header.__struct_fields__
# "glassq/1 " + 8 hex digits + "\n"
_PREFIX = len(MAGIC) + 9


def new(source: str, body: bytes, labels: dict[str, str]) -> Delivery:
    """A delivery of a ping that has just come in."""
    return Delivery(id=new_id(), source=source, received=datetime.now(UTC), body=body, labels=labels)


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): 48 bits of milliseconds since 1970, then 74 random ones."""
    # unique, not secret: os.urandom would give up the interpreter lock, and a busy intake wants it back for long
    value = int(time.time() * 1000) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def as_valid_utf8(text: str) -> str:
    """The text with what UTF-8 cannot say written out: halves of surrogate pairs, as odd file names hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


def encode(delivery: Delivery) -> bytes:
    """The bytes of a job. Evidence is shortened, oldest tracebacks first, until they fit into MAX_JOB.

    Where the body alone nearly fills that, it is BIG_JOB instead.
    """
    taken = _PREFIX + 1 + len(delivery.body)
    room = (MAX_JOB if MAX_JOB - taken >= MIN_ROOM else BIG_JOB) - taken
    evidence = _bounded(delivery.evidence)
    header = _header(delivery, evidence)
    for shorten in (_without_old_details, _without_tracebacks, _last_only):
        if len(header) <= room:
            break
        evidence = shorten(evidence)
        header = _header(delivery, evidence)
    rest = b"%b\n%b" % (header, delivery.body)
    return b"%b%08x\n%b" % (MAGIC, zlib.crc32(rest), rest)


def decode(data: bytes) -> Delivery:
    """The delivery in a job's bytes.

    Raises DamagedDelivery, with what is wrong and never with the bytes themselves.
    """
    if not data.startswith(MAGIC):
        raise DamagedDelivery(f"does not start with {MAGIC.decode()!r}: not put by glassq, or by another version")
    rest = data[_PREFIX:]
    if data[len(MAGIC) : _PREFIX] != b"%08x\n" % zlib.crc32(rest):
        raise DamagedDelivery(f"checksum is wrong: {len(data)} bytes, changed since they were put")
    header, newline, body = rest.partition(b"\n")
    if not newline:
        raise DamagedDelivery("has no header line")
    try:
        fields = _decode_header(header)
    except msgspec.MsgspecError as error:
        raise DamagedDelivery(f"header: {error}") from None
    except UnicodeDecodeError:
        raise DamagedDelivery("header: is not UTF-8") from None
    except RecursionError:
        raise DamagedDelivery("header: is nested too deep") from None
    return Delivery(body=body, **{name: getattr(fields, name) for name in _FIELDS})


def _header(delivery: Delivery, evidence: tuple[Evidence, ...]) -> bytes:
    values = {name: getattr(delivery, name) for name in _FIELDS}
    values |= {"evidence": evidence, "buried": as_valid_utf8(delivery.buried[:MAX_MESSAGE])}
    return _encode_header(Header(**values))


def _bounded(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    if len(evidence) > MAX_EVIDENCE:
        evidence = (evidence[0], *evidence[-(MAX_EVIDENCE - 1) :])
    return tuple(
        msgspec.structs.replace(
            item,
            error=as_valid_utf8(item.error[:MAX_MESSAGE]),
            message=as_valid_utf8(item.message[:MAX_MESSAGE]),
            traceback=as_valid_utf8(item.traceback[-MAX_TRACEBACK:]),
            host=as_valid_utf8(item.host),
        )
        for item in evidence
    )


def _without_old_details(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    bare = (msgspec.structs.replace(item, detail={}) for item in _without_tracebacks(evidence[:-1]))
    return (*bare, *evidence[-1:])


def _without_tracebacks(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    return tuple(msgspec.structs.replace(item, traceback="") for item in evidence)


def _last_only(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    return evidence[-1:]
