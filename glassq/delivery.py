"""The envelope around one ping, and its encoding in a job.

A job's bytes have three parts, readable for anybody who can peek a job:

    glassq/1 8d3f0a12\\n          format and CRC-32 (hex) of all that follows
    {"id":"0199...",...}\\n       the header: one line of JSON
    {"collection":"timeline"...  the ping's raw body, untouched, to the end

beanstalkd has no checksum of its own: it would serve a flipped bit on disk as a normal job.
When you add a field to Header, give it a default (older jobs lack it). When you change or remove a field, raise VERSION
(envelope.py) and teach `decode` both forms: jobs of the old version may lie buried for months.
"""

from __future__ import annotations

import hashlib
import random
import time
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import msgspec

from glassq import content
from glassq.envelope import MAGIC, PREFIX, checksum
from glassq.errors import DamagedDelivery

if TYPE_CHECKING:
    from collections.abc import Iterator

# beanstalkd's default limit for a job, in bytes (-z).
MAX_JOB = 65_535
# The limit of glassq's own beanstalkd, in bytes, for tasks with large payloads (App Engine allows 100 KB).
BIG_JOB = 131_072
# Minimum room for the history beside the body, in bytes; if that leaves less, BIG_JOB is the limit.
MIN_ROOM = 8_192
# Maximum number of evidence entries: the first and the latest ones, as those between mostly repeat.
MAX_EVIDENCE = 12
# Maximum length of a traceback, in characters; its end is kept, which names the line that failed.
MAX_TRACEBACK = 2_000
# Maximum length of any other text of a failure, in characters.
MAX_MESSAGE = 500
# Maximum size of a failure's `detail`, in bytes of JSON.
MAX_DETAIL = 8_192

# A time without a zone would mean another time on the next host.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one attempt failed.

    `at` is the end of the attempt, `duration` is in seconds. `error` is the exception's type, or what ended the
    process; `signal` is the signal, if one ended it. `detail` is the detail of the handler's Verdict.
    `step` is the name of the step that failed, where the route has steps.
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
    step: str = ""
    detail: dict[str, Any] = {}


class StoredBody(msgspec.Struct, frozen=True):
    """The ping's body is in the body store, under the delivery's id. `size` is in bytes, `sha256` in hex."""

    size: int
    sha256: str


# The forms of a step's result; "": it returned nothing.
Form = Literal["", "text", "json", "bytes"]


class StepResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step of the route returned: in `text` (bytes in Base64), or in the body store under `result_key`."""

    step: str
    form: Form = ""
    text: str = ""
    stored: StoredBody | None = None


def result_key(delivery: str, step: str) -> str:
    """The key in the body store of a step's result."""
    return f"{delivery}-{hashlib.sha256(step.encode()).hexdigest()[:16]}"


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A delivery without the ping's body: facts about the ping, and its history.

    `id`       glassq's own: unique and sortable by time (a UUID of version 7)
    `source`   who sent the ping: "mirror"
    `received` when intake received it (UTC)
    `labels`   what the source read from the ping, for routes to match, such as {"event": "push"}
    `content_type` the ping's Content-Type, as it came; "" if it had none, and in jobs of older releases
    `headers`  the ping's headers that its source keeps, names in lower case; never signatures or tokens
    `stored`   set if the body is in the body store, not in the job
    `attempt`  the number of the current or next attempt; the first is 1
    `failures` failed attempts that count; a kick resets it to 0
    `waits`    how often in a row a handler raised `Retry(counts=False)`
    `tried`    when the first attempt began, or the first after a kick; None before it
    `lost`     attempts that died with their process, in jobs before this one
    `buried`   the reason, while the delivery lies buried
    `tube`     the tube that this form of it was put into; "" in jobs of release 0.2
    `due`      when it was to be worked first, if it was put with a delay
    `done`     the results of the steps that earlier attempts have done, where its route has steps
    """

    id: str
    source: str
    received: Moment
    labels: dict[str, str] = {}
    content_type: str = ""
    headers: dict[str, str] = {}
    stored: StoredBody | None = None
    attempt: int = 1
    failures: int = 0
    waits: int = 0
    tried: Moment | None = None
    lost: int = 0
    buried: str = ""
    tube: str = ""
    due: Moment | None = None
    done: tuple[StepResult, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    @property
    def stored_keys(self) -> list[str]:
        """The keys in the body store of all that it names there: its body, and results of its steps."""
        if self.stored is None and not self.done:
            return []
        body = [self.id] if self.stored else []
        return body + [result_key(self.id, result.step) for result in self.done if result.stored]

    def age(self, now: datetime | None = None) -> float:
        """Seconds since intake received the ping; never negative, even if clocks differ."""
        return max(0.0, ((now or datetime.now(UTC)) - self.received).total_seconds())


class Delivery(Header, frozen=True, kw_only=True):
    """One ping on its way: the header's fields, and `body`, the ping's raw body.

    `json` and `form` raise UnreadableBody; a handler that does not catch it buries the delivery with that reason.
    """

    body: bytes = b""

    def json(self) -> Any:
        """The JSON in the body, or in the field `payload` of a form, as GitHub and Slack may send it."""
        return content.json_value(self.body, self.content_type)

    def form(self) -> dict[str, list[str]]:
        """The fields of a form (urlencoded or multipart), with all values of each; without uploaded files."""
        return content.form(self.body, self.content_type)

    def text(self) -> str:
        """The body in the charset of its type, by default UTF-8; bytes that are no characters become U+FFFD."""
        return content.text(self.body, self.content_type)

    def open(self) -> BinaryIO:
        """The body as a file open for reading."""
        return BytesIO(self.body)


_encode_header = msgspec.json.Encoder().encode
_decode_header = msgspec.json.Decoder(Delivery).decode


def new(
    source: str,
    body: bytes,
    labels: dict[str, str],
    *,
    tube: str = "",
    content_type: str = "",
    headers: dict[str, str] | None = None,
    stored: StoredBody | None = None,
    key: str = "",
) -> Delivery:
    """A delivery for a ping that has just arrived; `tube` is where it is to be put.

    With `stored`, `body` is empty, and `key` is that of the stored body, and the id; else the id is a new one.
    """
    return Delivery(
        id=key or new_id(),
        source=source,
        received=datetime.now(UTC),
        body=body,
        labels=labels,
        tube=tube,
        content_type=content_type,
        headers={} if headers is None else headers,
        stored=stored,
    )


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): 48 bits of milliseconds since 1970, then 74 random ones."""
    # unique, not secret: os.urandom releases the GIL, and under load re-acquiring it is slow
    return id_of(int(time.time() * 1000), random.getrandbits(80))


def id_of(milliseconds: int, bits: int) -> str:
    """The UUID of version 7 with this time, since 1970, and 74 of these 80 bits."""
    value = milliseconds << 80 | bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def made_at(key: str) -> float:
    """When a delivery's id was made, in seconds since 1970."""
    return int(key[:8] + key[9:13], 16) / 1000


def as_valid_utf8(text: str) -> str:
    """The text with characters that UTF-8 cannot encode written out: lone surrogates, as in odd file names."""
    return text.encode("utf-8", "backslashreplace").decode()


def encode(delivery: Delivery, largest: int = MAX_JOB) -> bytes:
    """The bytes of a job. Shortens the evidence, oldest tracebacks first, until the job fits into `largest` bytes.

    If the body alone nearly fills these, BIG_JOB is the limit.
    """
    body = b"" if delivery.stored else delivery.body
    taken = PREFIX + 1 + len(body)
    room = (largest if largest - taken >= MIN_ROOM else BIG_JOB) - taken
    header = b""
    for evidence in _forms(delivery.evidence):
        header = _header(delivery, evidence)
        if len(header) <= room:
            break
    rest = b"%b\n%b" % (header, body)
    return b"%b%b%b" % (MAGIC, checksum(rest), rest)


def decode(data: bytes) -> Delivery:
    """The delivery in a job's bytes.

    Raises DamagedDelivery, which says what is wrong and never quotes the bytes.
    """
    if not data.startswith(MAGIC):
        raise DamagedDelivery(f"does not start with {MAGIC.decode()!r}: not put by glassq, or by another version")
    rest = data[PREFIX:]
    if data[len(MAGIC) : PREFIX] != checksum(rest):
        raise DamagedDelivery(f"checksum is wrong: {len(data)} bytes, changed since they were put")
    header, newline, body = rest.partition(b"\n")
    if not newline:
        raise DamagedDelivery("has no header line")
    try:
        delivery = _decode_header(header)
    except msgspec.MsgspecError as error:
        raise DamagedDelivery(f"header: {error}") from None
    except UnicodeDecodeError:
        raise DamagedDelivery("header: is not UTF-8") from None
    except RecursionError:
        raise DamagedDelivery("header: is nested too deep") from None
    # nobody has it yet
    msgspec.structs.force_setattr(delivery, "body", body)
    return delivery


class _Tube(msgspec.Struct, frozen=True):
    tube: str = ""


_decode_tube = msgspec.json.Decoder(_Tube).decode


def tube_of(job: bytes) -> str:
    """The tube in the header of a job's bytes; "" where that has none, or they are no delivery.

    Quick, as nothing else is decoded or checked.
    """
    if not job.startswith(MAGIC):
        return ""
    end = job.find(b"\n", PREFIX)
    try:
        return _decode_tube(job[PREFIX:end]).tube
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _header(delivery: Delivery, evidence: tuple[Evidence, ...]) -> bytes:
    buried = as_valid_utf8(delivery.buried[:MAX_MESSAGE])
    # An empty body is left out. str(): a setting's tube is of a subclass, which msgspec does not encode.
    header = msgspec.structs.replace(delivery, body=b"", evidence=evidence, buried=buried, tube=str(delivery.tube))
    return _encode_header(header)


def encode_evidence(evidence: tuple[Evidence, ...]) -> str | None:
    """The evidence as JSON of at most MAX_JOB bytes, shortened as in a job; None if it has no form in JSON."""
    text = b""
    try:
        for form in _forms(evidence):
            text = msgspec.json.encode(form)
            if len(text) <= MAX_JOB:
                break
        return text.decode()
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None


def decode_evidence(text: str) -> tuple[Evidence, ...]:
    """The evidence in such JSON; none if it is damaged."""
    try:
        return msgspec.json.decode(text, type=tuple[Evidence, ...])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ()


def _forms(evidence: tuple[Evidence, ...]) -> Iterator[tuple[Evidence, ...]]:
    """The evidence as whole as possible, then shorter and shorter."""
    evidence = _bounded(evidence)
    yield evidence
    for shorten in (_without_old_details, _without_tracebacks, _last_only):
        evidence = shorten(evidence)
        yield evidence


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
