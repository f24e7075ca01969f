"""`glassq forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.conftest import EACH_ENGINE, a_delivery, put

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

ASKED = ("forget", "label.customer=ann")


def fill(queue: Queue, cli: Cli) -> None:
    ann = a_delivery(labels={"customer": "ann"})
    put(queue, ann, "buried")
    cli.record(ann, "buried", body=b"x", labels=dict(ann.labels))
    put(queue, a_delivery(labels={"customer": "bob"}), "buried")


def test_it_says_how_many_are_where_before_anything_is_removed(queue: Queue, cli: Cli) -> None:
    fill(queue, cli)
    said = cli(*ASKED, "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert "would be removed: 1 delivery in the queue, 1 delivery in the ledger\n" in said.out
    assert "this cannot reach:\n  backups" in said.out
    asked = cli(*ASKED)
    assert asked.code == 2
    assert "pass --yes, or --dry-run" in asked.err
    assert queue.stats_tube().buried == 2


def test_at_a_terminal_it_asks_and_removes(queue: Queue, cli: Cli) -> None:
    fill(queue, cli)
    assert cli.at_terminal(*ASKED, answer="n\n").code == 1
    assert queue.stats_tube().buried == 2
    said = cli.at_terminal(*ASKED, answer="y\n")
    assert said.code == 0
    assert "found: 1 delivery in the queue, 1 delivery in the ledger" in said.err
    assert "removed: 1 delivery in the queue, 1 delivery in the ledger\n" in said.out
    assert queue.stats_tube().buried == 1


@EACH_ENGINE
def test_as_json_it_counts_by_place(queue: Queue, cli: Cli) -> None:
    fill(queue, cli)
    said = cli(*ASKED, "--source", "mirror", "--yes", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["places"] == {"queue": 1, "journal": 0, "ledger": 1, "bodies": 0, "archives": {}}
    assert [result["did"] for result in said.json["results"]] == ["forgotten"]
    assert said.json["beyond"]


def test_where_nothing_is_found_nobody_is_asked(queue: Queue, cli: Cli) -> None:
    fill(queue, cli)
    said = cli("forget", "label.customer=nobody")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("nothing with these labels was found\n")


def test_a_mistyped_condition_is_told(cli: Cli) -> None:
    said = cli("forget", "customer=ann")
    assert said.code == 2
    assert "condition customer=ann: expected" in said.err
