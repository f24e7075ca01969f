"""`glassq buried`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, evidence, put, put_bytes

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue


def test_an_empty_list_is_said_in_words(cli: Cli) -> None:
    assert cli("buried").out == "nothing is buried in tube glassq\n"
    assert cli("buried", "--json").json == {"tube": "glassq", "total": 0, "fit": 0, "jobs": []}


@EACH_ENGINE
def test_buried_deliveries_come_newest_first_with_their_reason(queue: Queue, cli: Cli) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    first = a_delivery(buried="user ada took the consent back", attempt=3, received=hour_ago)
    second = a_delivery(buried="503 (gave up after 8 attempts)")
    jobs = [put(queue, first, "buried"), put(queue, second, "buried")]
    put(queue, a_delivery(), "ready")
    found = cli("buried", "--json").json
    assert [(int(row["job"]), row["delivery"]) for row in found["jobs"]] == [(jobs[1], second.id), (jobs[0], first.id)]
    oldest = found["jobs"][1]
    assert (oldest["attempts"], oldest["source"], oldest["reason"]) == (3, "mirror", "user ada took the consent back")
    assert 3600 <= oldest["age"] < 3700
    assert datetime.fromisoformat(oldest["received"]) == hour_ago


def test_a_delivery_that_an_older_release_buried_shows_what_failed_first(queue: Queue, cli: Cli) -> None:
    old = a_delivery(buried="gave up after 8 attempts: HttpError: 503\nbusy")
    job = put(queue, old, "buried")
    cli.record(old, "buried", job=job, reason=old.buried)
    wanted = "HttpError: 503\nbusy (gave up after 8 attempts)"
    assert [row["reason"] for row in cli("buried", "--json", "--where", "error~^HttpError").json["jobs"]] == [wanted]
    shown = cli("show", str(job), "--json").json
    assert (shown["delivery"]["buried"], shown["ledger"]["reason"]) == (wanted, wanted)
    assert "  HttpError: 503\\nbusy (gave up after 8 attempts)" in cli("tail", "--once").out
    assert "gave up after 8 attempts:" not in cli("show", str(job)).out


def test_a_damaged_job_is_shown_as_such_among_the_others(queue: Queue, cli: Cli) -> None:
    good = a_delivery(buried="a reason")
    spoilt = bytearray(envelope.encode(good))
    spoilt[-1] ^= 1
    put_bytes(queue, bytes(spoilt), "buried")
    put_bytes(queue, b"\xff\xfe\x1b[31m", "buried")
    put(queue, good, "buried")
    rows = cli("buried", "--json").json["jobs"]
    assert [row["damaged"] for row in rows] == [False, True, True]
    assert "checksum is wrong" in rows[2]["reason"]
    assert cli("buried").out.count("  damaged  ") == 2


def test_a_delivery_that_says_no_reason_shows_its_last_evidence(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(evidence=(evidence("first"), evidence("the last message"))), "buried")
    assert cli("buried", "--json").json["jobs"][0]["reason"] == "the last message"


def test_a_limit_shows_the_newest_and_says_how_many_more(queue: Queue, cli: Cli) -> None:
    jobs = [put(queue, a_delivery(), "buried") for _ in range(5)]
    assert [int(row["job"]) for row in cli("buried", "--json", "--limit", "2").json["jobs"]] == [jobs[4], jobs[3]]
    assert "3 more: --limit 5 shows all" in cli("buried", "--limit", "2").out


def test_a_limit_among_those_that_fit_does_not_say_how_many_fit(queue: Queue, cli: Cli) -> None:
    for reason in ("503", "503", "404"):
        put(queue, a_delivery(buried=reason), "buried")
    asked = ("buried", "--where", "error~503", "--limit")
    assert "the newest 1 of those that fit; 3 are buried in all (--limit 3 shows all that fit)" in cli(*asked, "1").out
    assert "2 of 3 buried\n" in cli(*asked, "3").out
    assert [cli(*asked, limit, "--json").json["fit"] for limit in ("1", "3")] == [None, 2]
    assert cli("buried", "--limit", "1", "--json").json["fit"] == 3


def test_a_group_of_many_reasons_shows_one_for_example(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(buried="503"), "buried")
    for by, column in (("reason", "reason"), ("source", "for example"), ("handler", "for example")):
        header = cli("buried", "--by", by).out.splitlines()[0]
        assert " ".join(header.split()).endswith(f" newest example {column}")


def test_nothing_a_sender_wrote_reaches_the_terminal_as_a_command(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(buried=NASTY, source=NASTY, id="01990000-" + NASTY), "buried")
    for said in (cli("buried"), cli("buried", "--json")):
        assert not set("\x1b\x07\x9b\u202e") & set(said.out)
    assert "[red]bold[/red]" in cli("buried").out


def test_each_delivery_is_one_line_where_the_output_is_piped(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(buried="a long reason " * 30 + "\nin two lines"), "buried")
    assert sum("mirror" in line for line in cli("buried").out.splitlines()) == 1
    assert "in two lines" in next(line for line in cli("buried").out.splitlines() if "mirror" in line)
