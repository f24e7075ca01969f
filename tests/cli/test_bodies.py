"""`glassq bodies`, and what doctor says of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.bodies import DirectoryBodies
from glassq.bodies.sweep import GRACE, SAFE_AGE
from tests.bodies.test_directory import states
from tests.bodies.test_sweep import aged
from tests.cli.conftest import put

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue


@pytest.fixture
def store(cli: Cli) -> DirectoryBodies:
    """The store that the settings of `cli` name; it is not made yet."""
    made = DirectoryBodies(cli.directory / "bodies")
    cli.configure(f'[bodies]\nurl = "file://{made.directory}"\n')
    return made


def test_without_a_store_there_is_nothing_to_see_or_sweep(cli: Cli, store: DirectoryBodies) -> None:
    assert cli("bodies").out == f"no bodies at file://{store.directory}: nothing large was ever taken\n"
    assert cli("bodies", "--json").json["exists"] is False
    said = cli("bodies", "sweep")
    assert (said.code, "there is no store at" in said.err) == (1, True)
    assert "bodies" not in {check["name"] for check in cli("doctor", "--json").json["checks"]}


def test_what_is_stored_is_counted_by_what_becomes_of_it(cli: Cli, store: DirectoryBodies) -> None:
    store.prepare()
    aged(store, 7200, size=1 << 20)
    aged(store, 60, "done", size=1 << 19)
    told = cli("bodies", "--json").json
    assert (told["live"], told["live_bytes"], told["done"], told["done_bytes"]) == (1, 1 << 20, 1, 1 << 19)
    assert told["room"] > 0
    said = cli("bodies").out
    assert "1, 1.0 MiB" in said
    assert "1, 0.5 MiB" in said
    assert "2h" in said


def test_a_sweep_looks_at_all_jobs_now(queue: Queue, cli: Cli, store: DirectoryBodies) -> None:
    store.prepare()
    aged(store, GRACE + 10, "unfinished")
    orphan, named = aged(store, SAFE_AGE + 10), aged(store, SAFE_AGE + 10)
    delivery = envelope.new("mirror", b"", {}, stored=envelope.StoredBody(1, "0" * 64), key=named)
    put(queue, delivery, "buried")
    cli.record(delivery, "buried")
    assert cli("bodies", "sweep").out == "1 removed, 1 put aside that no job names\n"
    assert states(store) == {orphan: "done", named: "live"}
    assert cli("bodies", "sweep", "--json").json == {
        "removed": 0,
        "removed_bytes": 0,
        "orphans": 0,
        "looked": True,
        "unsure": "",
    }
    # the second one changed nothing
    (told,) = cli("activity", "--json").json["activities"]
    assert (told["did"], told["done"]) == ("bodies sweep", 2)


@pytest.mark.parametrize(
    ("more", "age", "ok", "says"),
    [
        ("", 60.0, True, "1 of jobs, 0 done"),
        ("", 9 * SAFE_AGE, None, "the oldest was touched 9d ago"),
        ('min_free = "1000000GiB"\n', 60.0, False, "no room for a body of 25MiB"),
    ],
)
def test_doctor_looks_at_the_store(
    cli: Cli, store: DirectoryBodies, more: str, age: float, ok: bool | None, says: str
) -> None:
    store.prepare()
    aged(store, age)
    cli.configure(f'[bodies]\nurl = "file://{store.directory}"\n{more}')
    (check,) = [check for check in cli("doctor", "--json").json["checks"] if check["name"] == "bodies"]
    assert (check["ok"], says in check["said"]) == (ok, True), check
