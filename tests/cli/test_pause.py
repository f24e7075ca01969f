"""`glassq pause` and `glassq resume`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, put

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

MAIL = "glassq.push.mail"


@pytest.fixture
def tubes(queue: Queue) -> None:
    """A job in each of two tubes of ours, and in one that is not."""
    put(queue, a_delivery())
    for tube in (MAIL, "elsewhere"):
        queue.put(b"something", tube=tube)


def paused_for(queue: Queue, *tubes: str) -> list[int]:
    return [queue.stats_tube(tube).paused_for for tube in tubes]


@EACH_ENGINE
@pytest.mark.usefixtures("tubes")
def test_all_tubes_of_ours_are_paused_and_no_other_until_they_are_resumed(queue: Queue, cli: Cli) -> None:
    # there is a ledger, which knows who did it
    cli.record(a_delivery(), "done")
    said = cli("pause")
    assert said.code == 0
    assert said.out.splitlines()[:2] == [
        f"tube {tube} is paused: what runs goes on, the rest waits" for tube in ("glassq", MAIL)
    ]
    # PostgreSQL does not forget it
    forgets = cli.url.startswith("beanstalk")
    assert ("the queue forgets it when it is restarted" in said.out) == forgets
    assert ("systemctl stop glassq-worker" in said.out) == forgets
    assert f"pings are still accepted; `glassq --config {cli.file} resume`" in said.out
    *ours, foreign = paused_for(queue, "glassq", MAIL, "elsewhere")
    assert min(ours) > 100 * 365 * 86_400
    assert foreign == 0
    assert queue.reserve(0, ["glassq", MAIL]) is None
    by = r"by \S+ \(\S+\), since 2\S+Z; to let it go on"
    assert re.search(rf"tube glassq is paused until it is resumed, {by}", " ".join(cli("status").out.split()))
    assert cli("resume").out == f"tube glassq goes on\ntube {MAIL} goes on\n"
    assert queue.reserve(0, ["glassq"]) is not None


@pytest.mark.usefixtures("tubes")
def test_a_ping_comes_in_while_its_tube_is_paused(queue: Queue, cli: Cli) -> None:
    assert cli("pause", "glassq").code == 0
    put(queue, a_delivery())
    assert (queue.stats_tube().ready, queue.reserve(0)) == (2, None)


@pytest.mark.usefixtures("tubes")
def test_one_tube_is_paused_for_so_long(queue: Queue, cli: Cli) -> None:
    said = cli("pause", MAIL, MAIL, "--for", "2h")
    assert said.out.splitlines()[0] == f"tube {MAIL} is paused for 2h: what runs goes on, the rest waits"
    assert said.out.count("is paused") == 1
    main, mail = paused_for(queue, "glassq", MAIL)
    assert (main, 7000 < mail <= 7200) == (0, True)
    again = cli("resume", MAIL, "glassq")
    assert again.out == f"tube {MAIL} goes on\ntube glassq was not paused\n"
    assert again.code == 0


@pytest.mark.usefixtures("tubes")
def test_a_pause_of_everything_leaves_a_longer_one(queue: Queue, cli: Cli) -> None:
    cli.record(a_delivery(), "done")
    assert cli("pause", MAIL, "--for", "12h").code == 0
    said = cli("pause", "--for", "10m")
    assert said.code == 0
    assert said.out.splitlines()[:2] == [
        "tube glassq is paused for 10m: what runs goes on, the rest waits",
        f"tube {MAIL} is paused for longer than that, and stays so",
    ]
    main, mail = paused_for(queue, "glassq", MAIL)
    assert (0 < main <= 600, mail > 11 * 3_600) == (True, True)
    assert f"and stay so: {MAIL}" in cli("activity", "--json").json["activities"][0]["note"]
    assert {"tube": MAIL, "paused": True} in cli("pause", "--for", "5m", "--json").json["tubes"]
    # who names it means it
    assert cli("pause", MAIL, "--for", "10m").code == 0
    assert paused_for(queue, MAIL)[0] <= 600


@pytest.mark.usefixtures("tubes")
def test_less_than_a_second_is_a_second(queue: Queue, cli: Cli) -> None:
    assert "is paused for 1s" in cli("pause", "glassq", "--for", "1ms").out


@pytest.mark.usefixtures("tubes")
def test_programs_read_json(cli: Cli) -> None:
    assert cli("pause", "--json").json == {
        "tubes": [{"tube": "glassq", "paused": True}, {"tube": MAIL, "paused": True}]
    }
    assert cli("resume", MAIL, "--json").json == {"tubes": [{"tube": MAIL, "resumed": True}]}
    assert cli("resume", MAIL, "--json").json == {"tubes": [{"tube": MAIL, "resumed": False}]}


@pytest.mark.usefixtures("beanstalkd")
def test_where_there_is_nothing_to_pause_it_says_what_can_be_done(cli: Cli) -> None:
    said = cli("pause")
    assert (said.code, said.out) == (1, "")
    assert "tube glassq: the queue has nothing to pause: it holds no job, and no glassq-worker waits on it" in said.err
    assert "systemctl stop glassq-worker" in said.err


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.usefixtures("tubes")
def test_a_tube_that_is_not_ours_is_refused_and_no_other_is_touched(queue: Queue, cli: Cli, command: str) -> None:
    said = cli(command, "glassq", "elsewhere")
    assert (said.code, paused_for(queue, "glassq")) == (2, [0])
    assert f"tube elsewhere is not ours: there are glassq, {MAIL}" in said.err
    assert f"did you mean {MAIL}?" in cli(command, "mail").err
    bad = cli(command, NASTY)
    assert (bad.code, "\x1b" in bad.err) == (2, False)


@pytest.mark.parametrize(
    ("period", "why"),
    [("0s", "pauses nothing"), ("soon", "expected a duration"), ("50000d", "expected at most 49710d")],
)
def test_a_period_that_makes_no_sense_is_a_usage_error(offline: Cli, period: str, why: str) -> None:
    said = offline("pause", "--for", period)
    assert said.code == 2
    assert why in said.err


def test_a_queue_that_is_not_there_is_exit_69(beanstalkd: Beanstalkd, cli: Cli) -> None:
    beanstalkd.stop()
    assert [cli(command).code for command in ("pause", "resume")] == [69, 69]
