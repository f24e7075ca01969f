"""What others of the account put into our queues, or call like them: it is buried, and stops nothing."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from glassq.delivery import decode
from glassq.errors import DamagedDelivery, JobTooBig
from glassq.queues import open_inspector, open_receiver
from glassq.queues.sqs.client import shared_client
from glassq.queues.sqs.messages import MAX_LOSSES, MAX_MESSAGE, MessageStory, story_of
from glassq.queues.sqs.names import TAG
from glassq.queues.sqs.place import place_of
from tests.conftest import wait_for
from tests.queues.sqs.pool import SqsPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.base import Job
    from glassq.queues.sqs.client import SqsClient
    from tests.queues.sqs.service import SqsService


@pytest.fixture
def pool(tmp_path: Path, service: SqsService) -> Iterator[SqsPool]:
    running = SqsPool(tmp_path, service, ttr=600, prefix="foreign", processes=1)
    yield running
    running.end()


def client_of(pool: SqsPool) -> SqsClient:
    return shared_client(place_of(pool.settings.queue.url), 5.0, 5.0)


def told(text: str) -> dict[str, Any]:
    return {"MessageAttributes": {"glassq": {"DataType": "String", "StringValue": text}}}


def buried(pool: SqsPool) -> list[Job]:
    with closing(open_inspector(pool.settings)) as inspector:
        return list(inspector.find(frozenset({"buried"}), ["pings"]))


def test_whatever_is_in_our_queue_is_buried_and_stops_nothing(pool: SqsPool) -> None:
    client, of = client_of(pool), client_of(pool).of("pings")
    foreign: list[tuple[str, dict[str, Any]]] = [
        ("Hello", {}),
        ("x" * MAX_MESSAGE, {}),
        ("base64:!!!", {}),
        ("base64:AAEC/w==", {}),
        ('{"Records": [{"eventSource": "aws:s3"}]}', {}),
        ("losses of nobody", told(json.dumps({"losses": 10**40}))),
        ("fewer than none", told(json.dumps({"losses": -7}))),
        ("another reference", told(json.dumps({"ref": "shelf-1\n\x1b[2J"}))),
        ("nested", told('{"a":' + "[" * 9_000 + "]" * 9_000 + "}")),
        ("no JSON", told("\x01{")),
    ]
    for body, more in foreign:
        client.once("send_message", **of, MessageBody=body, **more)
    pool.start()
    [ours] = pool.put([{}])
    wait_for(lambda: pool.done() == [ours], "our own to be worked")
    wait_for(lambda: len(buried(pool)) == len(foreign), "all others to be buried")
    wait_for(lambda: not pool.messages(), "nothing to be left")
    found = buried(pool)
    for job in found:
        with pytest.raises(DamagedDelivery):
            decode(job.body)
        assert 0 <= (job.losses or 0) <= MAX_LOSSES + 100
    assert {b"x" * MAX_MESSAGE, b"Hello", b"\x00\x01\x02\xff", b"base64:!!!"} <= {job.body for job in found}
    log = (pool.home / "pool.log").read_text()
    assert "Traceback" not in log
    assert log.count("damaged job buried") == len(foreign)
    with closing(open_inspector(pool.settings)) as inspector:
        # more than a job of ours may have: it can be looked at and deleted, and says why it is not kicked
        [large] = [job for job in found if len(job.body) == MAX_MESSAGE]
        with pytest.raises(JobTooBig, match="are the maximum"):
            inspector.change(large, state="ready")
        inspector.delete(large)


def test_what_is_too_large_for_us_can_be_given_back(pool: SqsPool) -> None:
    client_of(pool).once("send_message", **client_of(pool).of("pings"), MessageBody="y" * MAX_MESSAGE)
    with closing(open_receiver(pool.settings)) as receiver:
        held = receiver.reserve(["pings"], 0)
        assert held is not None
        receiver.release(held)
        again = receiver.reserve(["pings"], 5)
        assert again is not None
        assert len(again.body) == MAX_MESSAGE
        receiver.bury(again)


def test_a_queue_that_says_it_is_another_tubes_gets_none_of_it(pool: SqsPool) -> None:
    client = client_of(pool)
    right = client.url("pings")
    # a tag that lies, a name that we would write otherwise, and one that no tube has
    hashed = f"foreign-x_h{'0' * 32}"
    for name, tags in ((hashed, {TAG: "pings"}), ("foreign-_70ings", {}), ("foreign-a_0a_1b", {})):
        client.insist("create_queue", QueueName=name, tags=tags)
    with closing(open_inspector(pool.settings)) as inspector:
        assert [counts.name for counts in inspector.counts()] == ["pings"]
    assert client.url("pings") == right
    for name in (hashed, "foreign-_70ings", "foreign-a_0a_1b"):
        client.insist("delete_queue", QueueUrl=f"{right.rpartition('/')[0]}/{name}")


@pytest.mark.parametrize("text", ['{"losses": 1e99}', '{"ref": 7}', "[]", "", "\ud800", '{"ref": "a b"}', "{" * 20_000])
def test_a_story_of_nobody_is_none(text: str) -> None:
    assert story_of({"MessageAttributes": {"glassq": {"StringValue": text}}}) == MessageStory()
