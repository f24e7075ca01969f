"""Tubes and the names of their queues; bytes and the text of messages; what a queue's URL says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq.queues.aws.text import bytes_of, text_of
from glassq.queues.sqs.messages import MAX_JOB, MAX_MESSAGE, MessageStory, attributes_of, story_of
from glassq.queues.sqs.names import MAX_NAME, is_hashed, queue_name, tube_of
from glassq.queues.sqs.place import SqsPlace, place_of
from glassq.values import QueueUrl

TUBES = st.from_regex(r"[A-Za-z0-9+/;.$_()][A-Za-z0-9\-+/;.$_()]{0,199}", fullmatch=True)
# What the service takes (API reference, SendMessage).
TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


@pytest.mark.parametrize(
    ("tube", "name"),
    [
        ("glassq", "my-glassq"),
        ("glassq.queue.mail", "my-glassq__queue__mail"),
        ("a_b-c", "my-a_5fb-c"),
        ("a.held.h", "my-a__held__h"),
        ("$(x)", "my-_24_28x_29"),
    ],
)
def test_a_queues_name_says_its_tube(tube: str, name: str) -> None:
    assert (queue_name("my", tube), tube_of("my", name)) == (name, tube)


@given(tube=TUBES)
def test_every_tube_has_a_name_of_its_own_that_is_allowed(tube: str) -> None:
    name = queue_name("my", tube)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name)
    assert tube_of("my", name) == ("" if is_hashed("my", tube) else tube)
    assert tube_of("m", name) is None


def test_long_tubes_that_begin_alike_have_different_names() -> None:
    long = [f"{'x.' * 90}{number}" for number in range(50)]
    names = {queue_name("my", tube) for tube in long}
    assert len(names) == 50
    assert {len(name) for name in names} <= set(range(MAX_NAME - 2, MAX_NAME + 1))


@pytest.mark.parametrize("name", ["my", "my-", "other-glassq", "my-a_", "my-a_zz", "my-a.fifo"])
def test_queues_of_others_are_no_tubes(name: str) -> None:
    assert tube_of("my", name) is None


@given(body=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_every_body_becomes_text_that_is_taken_and_comes_back(body: bytes) -> None:
    assert TEXT.fullmatch(text_of(body))
    assert bytes_of(text_of(body)) == body


@pytest.mark.parametrize("body", [b"", b"\0", b"\x1b", "\ufffe".encode(), b"base64:AAAA", b"\xff"])
def test_what_is_no_text_is_marked(body: bytes) -> None:
    assert text_of(body).startswith("base64:")
    assert bytes_of(text_of(body)) == body


def test_a_delivery_that_is_text_goes_as_it_is() -> None:
    assert text_of(b'glassq1 {"id": "x"}\r\n\tbody') == 'glassq1 {"id": "x"}\r\n\tbody'
    # somebody else's message, which looks like ours
    assert bytes_of("base64:not base64!") == b"base64:not base64!"


def test_the_largest_job_fits_whatever_its_bytes() -> None:
    story = attributes_of(MessageStory("x" * 36, 100, True))
    size = len(text_of(b"\0" * MAX_JOB)) + len(str(story))
    assert MAX_MESSAGE - 2048 < size <= MAX_MESSAGE


@pytest.mark.parametrize("story", [MessageStory(), MessageStory("r", 3, True), MessageStory(losses=1)])
def test_a_story_goes_with_the_message(story: MessageStory) -> None:
    assert story_of(attributes_of(story)) == story
    assert story_of({"MessageAttributes": {"glassq": {"StringValue": "nonsense"}}}) == MessageStory()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqs://eu-west-1/glassq", SqsPlace("eu-west-1", "glassq")),
        ("sqs://us-gov-east-1/a_B1/?poll=5", SqsPlace("us-gov-east-1", "a_B1", "", 5)),
        (
            "sqs://eu-west-1/p?endpoint=http://127.0.0.1:5000&poll=1",
            SqsPlace("eu-west-1", "p", "http://127.0.0.1:5000", 1),
        ),
    ],
)
def test_a_queues_url_says_where_the_queues_are(url: str, place: SqsPlace) -> None:
    found = QueueUrl(url)
    assert (found.engine, found.many_hosts, found.is_database, place_of(found)) == ("sqs", True, False, place)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqs://AKIA:secret@eu-west-1/glassq", "no key belongs into sqs://"),
        ("sqs://AKIA@eu-west-1/glassq", "credentials by itself"),
        ("sqs://nowhere/glassq", "a region such as"),
        ("sqs://eu-west-1", "1 to 30"),
        ("sqs://eu-west-1/a-b", "1 to 30"),
        ("sqs://eu-west-1/a/b", "1 to 30"),
        ("sqs://eu-west-1/p?poll=21", "poll=SECONDS"),
        ("sqs://eu-west-1/p?secret_key=x", "endpoint="),
        ("sqs://eu-west-1/p?endpoint=http://u:p@h", "endpoint="),
    ],
)
def test_what_is_no_place_is_refused_with_the_reason(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        QueueUrl(url)
