from __future__ import annotations

import json
import re
import uuid
import zlib
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassq import delivery as envelope
from glassq.delivery import (
    MAX_EVIDENCE,
    MAX_JOB,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    Delivery,
    Evidence,
    StoredBody,
    decode,
    encode,
)
from glassq.errors import DamagedDelivery

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]))
counts = st.integers(0, 1 << 31)
evidences = st.builds(
    Evidence,
    attempt=counts,
    outcome=texts,
    error=texts,
    message=texts,
    at=moments,
    duration=st.floats(0, 1e6),
    host=texts,
    traceback=texts,
    signal=texts,
)
deliveries = st.builds(
    Delivery,
    id=texts,
    source=texts,
    received=moments,
    labels=st.dictionaries(texts, texts, max_size=4),
    content_type=texts,
    headers=st.dictionaries(texts, texts, max_size=4),
    stored=st.none() | st.builds(StoredBody, size=counts, sha256=texts),
    attempt=counts,
    failures=counts,
    waits=counts,
    lost=counts,
    buried=texts,
    evidence=st.lists(evidences, max_size=MAX_EVIDENCE).map(tuple),
    body=st.binary(max_size=400),
).map(lambda delivery: msgspec.structs.replace(delivery, body=b"") if delivery.stored else delivery)


def failed(attempt: int, *, message: str = "no", traceback: str = "") -> Evidence:
    return Evidence(
        attempt=attempt,
        outcome="retry",
        error="ValueError",
        message=message,
        at=NOW,
        duration=0.25,
        host="h",
        traceback=traceback,
    )


def with_evidence(*evidence: Evidence, body: bytes = b"{}", buried: str = "") -> Delivery:
    made = envelope.new("mirror", body, {"collection": "timeline"})
    return msgspec.structs.replace(made, evidence=evidence, buried=buried)


def job(header: bytes, body: bytes = b"{}") -> bytes:
    """A job as another program could put it, its checksum right."""
    rest = header + b"\n" + body
    return b"glassq/1 %08x\n%b" % (zlib.crc32(rest), rest)


@given(deliveries)
def test_what_is_encoded_is_decoded_to_the_same_delivery(delivery: Delivery) -> None:
    assert decode(encode(delivery)) == delivery


@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_comes_back_untouched(body: bytes) -> None:
    assert decode(encode(with_evidence(body=body))).body == body


def test_every_flipped_bit_is_noticed() -> None:
    data = encode(with_evidence(failed(1), body=b'{"userToken":"u"}'))
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedDelivery):
            decode(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    data = encode(with_evidence(failed(1)))
    for length in range(len(data)):
        with pytest.raises(DamagedDelivery):
            decode(data[:length])


def test_an_appended_byte_is_noticed() -> None:
    with pytest.raises(DamagedDelivery, match="checksum"):
        decode(encode(with_evidence()) + b"\0")


@given(st.binary(max_size=300))
def test_foreign_bytes_are_damaged_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(DamagedDelivery):
        decode(data)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"id":"\xff","source":"m","received":"2026-01-31T12:00:00Z"}',
        b'{"id":1,"source":"m","received":"2026-01-31T12:00:00Z"}',
        b'{"id":"a","source":"m"}',
        b'{"id":"a","source":"m","received":"yesterday"}',
        b'{"id":"a","source":"m","received":"2026-01-31T12:00:00"}',
        b'{"id":"a","source":"m","received":"2026-01-31T12:00:00Z","evidence":[{}]}',
        b'{"colour":' + b"[" * 20_000,
    ],
)
def test_a_header_that_is_none_is_damaged_even_with_a_right_checksum(header: bytes) -> None:
    with pytest.raises(DamagedDelivery, match="header"):
        decode(job(header))


def test_a_job_without_a_header_line_is_damaged() -> None:
    with pytest.raises(DamagedDelivery, match="header line"):
        decode(b"glassq/1 %08x\n{}" % zlib.crc32(b"{}"))


def test_a_job_of_another_version_says_so() -> None:
    with pytest.raises(DamagedDelivery, match="another version"):
        decode(encode(with_evidence()).replace(b"glassq/1", b"glassq/2", 1))


def test_an_older_job_without_the_newer_fields_is_decoded() -> None:
    found = decode(job(b'{"id":"a","source":"mirror","received":"2026-01-31T12:00:00Z"}', b"body"))
    assert found == Delivery(id="a", source="mirror", received=NOW, body=b"body")
    assert (found.attempt, found.failures, found.evidence) == (1, 0, ())


def test_a_newer_job_with_fields_we_do_not_know_is_decoded() -> None:
    found = decode(job(b'{"id":"a","source":"mirror","received":"2026-01-31T12:00:00Z","colour":"green"}'))
    assert found.id == "a"


@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "magic"])
def test_what_a_damaged_job_says_holds_nothing_of_it(damage: str) -> None:
    data = encode(with_evidence(body=b"verifyToken-s3cret"))
    broken = {
        "cut": data[:-1],
        "flipped": data.replace(b"s3cret", b"s3creT"),
        "header": job(b'{"id":"s3cret","source":7,"received":"s3cret"}', b"s3cret"),
        "magic": b"s3cret" + data,
    }[damage]
    with pytest.raises(DamagedDelivery) as caught:
        decode(broken)
    assert "s3cre" not in str(caught.value)


def test_a_job_can_be_read_by_whoever_peeks_it() -> None:
    first, header, body = encode(with_evidence(body=b'{"collection":"timeline"}')).split(b"\n", 2)
    assert re.fullmatch(rb"glassq/1 [0-9a-f]{8}", first)
    assert json.loads(header)["source"] == "mirror"
    assert body == b'{"collection":"timeline"}'


# -- the bound of a job ---------------------------------------------------------------------------------------------


def test_a_short_story_is_kept_whole() -> None:
    evidence = tuple(failed(n, traceback=f"line {n}") for n in range(1, 5))
    assert decode(encode(with_evidence(*evidence))).evidence == evidence


def test_of_many_failures_the_first_and_the_latest_are_kept() -> None:
    kept = decode(encode(with_evidence(*(failed(n) for n in range(1, 101))))).evidence
    assert [item.attempt for item in kept] == [1, *range(102 - MAX_EVIDENCE, 101)]


def test_of_a_long_traceback_the_end_is_kept_and_of_a_long_message_the_start() -> None:
    (kept,) = decode(encode(with_evidence(failed(1, message="M" + "m" * 9_000, traceback="t" * 9_000 + "T")))).evidence
    assert kept.traceback == "t" * (MAX_TRACEBACK - 1) + "T"
    assert kept.message == "M" + "m" * (MAX_MESSAGE - 1)


@pytest.mark.parametrize("sign", ["x", "\0", "\N{GRINNING FACE}", "\udc80"])
@pytest.mark.parametrize("size", [0, 16 << 10, 32 << 10])
def test_a_job_never_grows_over_the_queues_limit(sign: str, size: int) -> None:
    evidence = [failed(n, message=sign * 9_000, traceback=sign * 9_000) for n in range(1, 40)]
    body = bytes(range(256)) * (size // 256)
    data = encode(with_evidence(*evidence, body=body, buried=sign * 99_000))
    assert len(data) <= MAX_JOB
    found = decode(data)
    assert found.body == body
    assert found.evidence[-1].attempt == 39
    assert found.buried


def test_old_tracebacks_go_before_the_newest_one() -> None:
    evidence = [failed(n, traceback="\0" * 2_000) for n in range(1, 10)]
    kept = decode(encode(with_evidence(*evidence))).evidence
    assert [bool(item.traceback) for item in kept] == [False] * 8 + [True]
    assert [item.attempt for item in kept] == list(range(1, 10))


def test_half_a_surrogate_pair_is_written_out() -> None:
    (kept,) = decode(encode(with_evidence(failed(1, message="caf\udce9")))).evidence
    assert kept.message == r"caf\udce9"


# -- ids and ages ---------------------------------------------------------------------------------------------------


def test_ids_are_uuids_of_version_7() -> None:
    made = uuid.UUID(envelope.new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    written = datetime.fromtimestamp((made.int >> 80) / 1000, UTC)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


def test_ids_are_unique_and_sort_by_time() -> None:
    made = [envelope.new_id() for _ in range(20_000)]
    assert len(set(made)) == len(made)
    # within one millisecond chance decides: what sorts is the time in front
    times = [name[:13] for name in made]
    assert times == sorted(times)
    assert times[0] < times[-1]


@settings(max_examples=50)
@given(st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_an_age_is_in_seconds_and_never_negative(passed: timedelta) -> None:
    delivery = Delivery(id="a", source="mirror", received=NOW, body=b"")
    assert delivery.age(NOW + passed) == passed.total_seconds()
    assert delivery.age(NOW - passed) == 0


def test_a_new_delivery_has_just_been_received_and_waits_for_its_first_attempt() -> None:
    made = envelope.new("mirror", b"{}", {"collection": "timeline"})
    assert (made.source, made.body, made.attempt, made.failures, made.evidence) == ("mirror", b"{}", 1, 0, ())
    assert made.age() < 60
