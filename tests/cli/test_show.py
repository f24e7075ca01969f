"""`glassq show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from glassq.delivery import encode
from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, evidence, put, put_bytes

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

ID = "01990000-aaaa-7000-8000-000000000001"
TRACEBACK = 'Traceback (most recent call last):\n  File "photos.py", line 7, in store\nValueError: odd\n'


@EACH_ENGINE
def test_the_whole_story_is_one_document(queue: Queue, cli: Cli) -> None:
    told = a_delivery(
        id=ID, attempt=3, failures=2, buried="gave up", evidence=(evidence(), evidence("odd", traceback=TRACEBACK))
    )
    job = put(queue, told, "buried")
    cli.record(told, "buried", job=job, reason="gave up")
    for name in (ID, ID[:8], str(job)):
        found = cli("show", name, "--json").json
        assert (found["delivery"]["id"], found["delivery"]["attempt"], found["delivery"]["failures"]) == (ID, 3, 2)
        assert found["delivery"]["labels"] == {"collection": "timeline", "operation": "INSERT"}
        assert [each["message"] for each in found["delivery"]["evidence"]] == ["503 from the API", "odd"]
        assert (found["job"]["id"], found["job"]["state"]) == (str(job), "buried")
        assert (found["ledger"]["state"], found["ledger"]["job"]) == ("buried", str(job))


def test_people_see_attempts_reason_and_traceback(queue: Queue, cli: Cli) -> None:
    told = a_delivery(buried="gave up after 8 attempts", evidence=(evidence("odd", traceback=TRACEBACK),))
    said = cli("show", str(put(queue, told, "buried"))).out
    assert f"delivery {told.id}" in said
    assert "gave up after 8 attempts" in said
    assert '  |   File "photos.py", line 7, in store\n  | ValueError: odd' in said


def test_secrets_in_the_body_are_masked_at_any_depth(queue: Queue, cli: Cli) -> None:
    body = {
        "verifyToken": "s3cret-1",
        "itemId": "visible",
        "deep": [{"Client_Secret": "s3cret-2", "list": [{"apiKey": {"k": "s3cret-3"}}]}],
        "password": "s3cret-4",
        "accessToken": None,
    }
    job = put(queue, a_delivery(json.dumps(body).encode()))
    for said in (cli("show", str(job)), cli("show", str(job), "--json")):
        assert said.code == 0
        assert "s3cret" not in said.out
        assert "visible" in said.out


def test_secrets_are_masked_in_bodies_that_are_no_json_too(queue: Queue, cli: Cli) -> None:
    for body in (b'{"verifyToken": "s3cret", "cut', b"access_token=s3cret&item=visible", b"[" * 3_000):
        said = cli("show", str(put(queue, a_delivery(body))))
        assert said.code == 0
        assert "s3cret" not in said.out


def test_what_a_ping_came_with_is_shown_and_secrets_among_it_are_masked(queue: Queue, cli: Cli) -> None:
    kept = {"x-github-event": "push", "x-acme-token": "s3cret", "x-link": "https://a:s3cret@example.org/?token=s3cret"}
    told = a_delivery(content_type="application/json; charset=utf-8", headers=kept)
    job = put(queue, told)
    said = cli("show", str(job))
    assert "application/json; charset=utf-8" in said.out
    assert "x-github-event: push, x-acme-token: ***" in " ".join(said.out.split())
    found = cli("show", str(job), "--json")
    assert found.json["delivery"]["content_type"] == "application/json; charset=utf-8"
    assert (found.json["delivery"]["headers"]["x-github-event"], list(found.json["delivery"]["headers"])) == (
        "push",
        list(kept),
    )
    assert "s3cret" not in said.out + found.out


def test_a_body_that_is_valid_json_but_no_number_of_python_is_shown(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(b'{"huge": 1e999, "half": "\\ud800", "long": 123456789012345678901234567890}'))
    body = cli("show", str(job), "--json").json["delivery"]["body"]
    assert (body["huge"], body["long"]) == ("1e999", 123456789012345678901234567890)
    assert cli("show", str(job)).code == 0


def test_a_damaged_job_is_shown_with_what_is_wrong_and_without_its_bytes(queue: Queue, cli: Cli) -> None:
    job = put_bytes(queue, b"glassq/1 00000000\n{}\nsomething", "buried")
    found = cli("show", str(job), "--json").json
    assert found["delivery"] is None
    assert (found["job"]["id"], found["job"]["bytes"]) == (str(job), 30)
    assert "checksum is wrong" in found["job"]["damage"]
    assert "checksum is wrong" in cli("show", str(job)).out


def test_a_delivery_that_left_the_queue_is_still_in_the_ledger(cli: Cli) -> None:
    cli.record(a_delivery(id=ID), "done", result="file:///photos/a.jpg")
    for name in (ID, ID[:10]):
        found = cli("show", name, "--json").json
        assert (found["in_queue"], found["job"], found["ledger"]["state"]) == (False, None, "done")
        kept = found["delivery"]
        assert (kept["id"], kept["source"], kept["labels"], kept["body"]) == (ID, "mirror", None, None)
    said = cli("show", ID).out
    assert "file:///photos/a.jpg" in said
    assert "not kept, nor its labels" in said


def test_of_a_delivery_that_left_the_queue_the_ledger_shows_what_it_was_masked(cli: Cli) -> None:
    told = a_delivery(id=ID)
    cli.record(
        told,
        "dropped",
        reason="no route",
        body=b'{"itemId": "visible", "verifyToken": "s3cret-1"}',
        labels={"collection": "timeline", "url": "/hook?token=s3cret-2"},
    )
    kept = cli("show", ID, "--json").json["delivery"]
    assert kept["body"] == {"itemId": "visible", "verifyToken": "***"}
    assert kept["labels"]["collection"] == "timeline"
    assert kept["received"] == told.received.isoformat().replace("+00:00", "Z")
    said = cli("show", ID).out
    assert "visible" in said
    assert "collection=timeline" in said
    assert f"{told.received.isoformat().replace('+00:00', 'Z')}" in said
    for printed in (said, cli("show", ID, "--json").out):
        assert "s3cret" not in printed


def test_of_a_delivery_that_is_done_it_tells_which_attempts_failed_masked(cli: Cli) -> None:
    told = evidence("503 from the API, token=s3cret-4711", attempt=1, traceback="in store, password=s3cret-4712")
    cli.record(a_delivery(id=ID), "done", result="stored", story=(told,))
    found = cli("show", ID, "--json").json
    (failure,) = found["delivery"]["evidence"]
    assert (failure["attempt"], failure["error"], failure["host"]) == (1, "HttpError", "here")
    assert "story" not in found["ledger"]
    said = cli("show", ID).out
    assert "attempt 1: retry" in said
    assert "503 from the API" in said
    assert "in store" in said
    assert "s3cret" not in said + str(found)


def test_a_prefix_of_several_deliveries_is_ambiguous(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(id=ID))
    put(queue, a_delivery(id=ID[:-1] + "2"))
    assert "the beginning of 2 deliveries" in cli("show", ID[:8]).err
    for name in (ID[:-1] + "3", ID[:-1] + "4"):
        cli.record(a_delivery(id=name), "done")
    said = cli("show", ID[:8])
    assert said.code == 2
    assert "the beginning of 2 deliveries" in said.err
    assert ID[:-1] + "4" in said.err


def test_a_job_that_was_given_to_another_delivery_is_not_taken_for_the_recorded_one(queue: Queue, cli: Cli) -> None:
    wanted, other = a_delivery(id=ID), a_delivery()
    others_job, job = put(queue, other, "buried"), put(queue, wanted, "buried")
    cli.record(wanted, "buried", job=others_job)
    for name in (ID, ID[:10]):
        assert cli("show", name, "--json").json["job"]["id"] == str(job)


def test_a_delivery_of_a_push_queue_is_shown_with_its_tube(queue: Queue, cli: Cli) -> None:
    queue.put(encode(a_delivery(id=ID)), tube="glassq.push.mail")
    assert cli("show", ID, "--json").json["job"]["tube"] == "glassq.push.mail"


def a_task(name: str, **fields: Any) -> Delivery:
    return a_delivery(source="push", labels={"queue": "mail", "task": name}, **fields)


@pytest.mark.parametrize("name", ["mail-7", "4711000", "a-name-that-is-longer"])
def test_a_task_is_shown_by_its_name_with_what_the_ledger_knows_of_it(queue: Queue, cli: Cli, name: str) -> None:
    wanted, other = a_task(name, id=ID), a_task("another")
    job, _ = (queue.put(encode(each), tube="glassq.push.mail") for each in (wanted, other))
    cli.record(wanted, "retrying", job=job)
    found = cli("show", name, "--json").json
    assert (found["job"]["id"], found["delivery"]["id"], found["ledger"]["delivery"]) == (str(job), ID, ID)


def test_a_name_that_two_queues_have_is_ambiguous_and_an_id_goes_before_a_name(queue: Queue, cli: Cli) -> None:
    job = queue.put(encode(a_task("twice", id=ID)), tube="glassq.push.mail")
    queue.put(encode(a_task("twice")), tube="glassq.push.photos")
    queue.put(encode(a_task(str(job))), tube="glassq.push.mail")
    said = cli("show", "twice")
    assert said.code == 2
    assert f"{ID} in tube glassq.push.mail" in said.err
    assert cli("show", str(job), "--json").json["delivery"]["id"] == ID


def test_a_name_that_no_task_has_is_told(queue: Queue, cli: Cli) -> None:
    queue.put(encode(a_task("another")), tube="glassq.push.mail")
    assert "no task in the queue has this name" in cli("show", "mail-7").err
    assert "and no task of this name" in cli("show", "a-name-that-is-longer").err


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"buried": "gave up"}, "given up after 1 attempt"),
        ({"buried": "gave up", "attempt": 8, "lost": 2}, "given up after 8 attempts (2 lost)"),
        (
            {"buried": "put aside", "attempt": 2, "evidence": (evidence(error="operator"),)},
            "put aside before attempt 2 (0 lost)",
        ),
        ({"attempt": 3, "failures": 2}, "3 (2 of its budget spent, 0 lost)"),
    ],
    ids=["given up", "later", "put aside", "never buried"],
)
def test_where_it_stands_is_said_in_words(queue: Queue, cli: Cli, fields: dict[str, Any], says: str) -> None:
    job = put(queue, a_delivery(**fields), "buried")
    shown = next(line for line in cli("show", str(job)).out.splitlines() if line.startswith("attempt"))
    assert shown.removeprefix("attempt").strip() == says


def test_one_that_was_kicked_is_shown_with_its_next_attempt(queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(buried="gave up", attempt=8), "buried")
    queue.kick(job)
    assert "9 (kicked: its budget is fresh)" in cli("show", str(job)).out


def test_what_nobody_knows_is_exit_1_and_says_where_was_looked(cli: Cli) -> None:
    said = cli("show", ID)
    assert (said.code, said.out) == (1, "")
    assert ID in said.err
    assert "no ledger at" in said.err
    assert cli("show", "4711").code == 1


def test_of_what_is_not_in_the_queue_an_unreadable_ledger_is_no_answer(queue: Queue, cli: Cli) -> None:
    (cli.directory / "ledger.db").write_text("no database")
    said = cli("show", ID)
    assert (said.code, said.out) == (74, "")
    assert "ledger.db" in said.err
    assert cli("show", str(put(queue, a_delivery(), "buried"))).code == 0


def test_nothing_a_sender_wrote_reaches_the_terminal_as_a_command(queue: Queue, cli: Cli) -> None:
    told = a_delivery(
        json.dumps({NASTY: NASTY}, ensure_ascii=False).encode(),
        labels={NASTY: NASTY},
        buried=NASTY,
        evidence=(evidence(NASTY, traceback=NASTY, host=NASTY, error=NASTY),),
    )
    job = put(queue, told, "buried")
    cli.record(told, "buried", job=job, reason=NASTY, result=NASTY)
    for said in (cli("show", str(job)), cli("show", str(job), "--json")):
        assert said.code == 0
        assert not set("\x1b\x07\x9b\u202e") & set(said.out)
