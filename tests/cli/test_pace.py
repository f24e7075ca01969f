"""`glassq kick --rate` and `--canary`."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from glassq import lifecycle
from glassq.cli import main as cli_main
from glassq.delivery import decode, encode
from glassq.operations.outcomes import OutcomeTracker
from glassq.operations.pace import Pace, per_second
from tests.cli.conftest import a_delivery, evidence, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.delivery import Delivery
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


@pytest.fixture
def pool(beanstalkd: Beanstalkd, cli: Cli) -> Iterator[Callable[..., list[str]]]:
    """Starts something that works what is ready: `succeeds` says of which delivery that goes well."""
    stop = threading.Event()
    threads = []

    def start(succeeds: Callable[[Delivery], bool], *, tells: bool = True) -> list[str]:
        worked: list[str] = []

        def work() -> None:
            queue = beanstalkd.queue()
            while not stop.is_set():
                if job := queue.reserve(1):
                    delivery = decode(job.body)
                    worked.append(delivery.id)
                    holder, state = 0, "done"
                    if not succeeds(delivery):
                        state, again = "retrying", lifecycle.after_kick(delivery)
                        holder = queue.put(encode(again_with_evidence(again)), delay=3600)
                    queue.delete(job.id, held=True)
                    if tells:
                        cli.record(delivery, state, job=holder, reason="" if state == "done" else "503 again")
            queue.close()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return worked

    yield start
    stop.set()
    for thread in threads:
        thread.join(30)


def again_with_evidence(delivery: Delivery) -> Delivery:
    return a_delivery(id=delivery.id, attempt=delivery.attempt, evidence=(evidence("503 again"),))


def a_heap(queue: Queue, count: int) -> list[int]:
    return [put(queue, a_delivery(buried="503"), "buried") for _ in range(count)]


def test_when_the_first_one_fails_again_the_rest_is_left_alone(
    queue: Queue, cli: Cli, pool: Callable[..., list[str]]
) -> None:
    a_heap(queue, 5)
    worked = pool(lambda _: False)
    said = cli("kick", "--all", "--canary", "--yes")
    assert said.code == 1
    assert len(worked) == 1
    assert queue.stats_tube().buried == 4
    assert "--canary: stopped: of 1 kicked, 1 failed again" in said.out
    assert f"{worked[0]}: 503 again" in said.out
    assert "4 were left buried" in said.out


def test_when_the_first_ones_succeed_the_rest_follows(queue: Queue, cli: Cli, pool: Callable[..., list[str]]) -> None:
    a_heap(queue, 13)
    worked = pool(lambda _: True)
    assert cli("kick", "--all", "--canary", "--yes").code == 0
    assert queue.stats_tube().buried == 0
    assert len(worked) >= 11


@pytest.mark.parametrize("succeeds", [True, False])
def test_without_a_ledger_the_queue_tells(
    queue: Queue, cli: Cli, pool: Callable[..., list[str]], succeeds: bool
) -> None:
    a_heap(queue, 1)
    pool(lambda _: succeeds, tells=False)
    said = cli("kick", "--all", "--canary", "--yes")
    assert said.code == (0 if succeeds else 1)
    assert ("503 again" in said.out) is not succeeds


def test_nobody_who_works_is_no_success(queue: Queue, cli: Cli) -> None:
    a_heap(queue, 2)
    said = cli("kick", "--all", "--canary", "--wait", "300ms", "--yes")
    assert said.code == 1
    assert "1 had no outcome within 0.3 s (is glassq-worker running?)" in said.out
    assert queue.stats_tube().buried == 1


def test_what_comes_to_nothing_in_time_is_no_success_for_who_follows_either(queue: Queue, cli: Cli) -> None:
    a_heap(queue, 2)
    said = cli("kick", "--all", "--follow", "--wait", "300ms", "--yes")
    assert (said.code, queue.stats_tube().ready) == (1, 2)
    assert "--follow: 2 had no outcome within 0.3 s (`glassq " in said.out
    assert "outcomes: 2 without outcome after " in said.out


def test_ctrl_c_while_following_is_exit_130_and_leaves_the_work_going(
    queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    a_heap(queue, 2)

    def interrupted(*_: object) -> dict[str, tuple[str, str]]:
        signal.raise_signal(signal.SIGINT)
        return {}

    monkeypatch.setattr(OutcomeTracker, "_outcomes", interrupted)
    assert cli_main.main(["--config", str(cli.file), "kick", "--all", "--follow", "--yes"]) == 130
    said = capfd.readouterr()
    assert "2 kicked\n" in said.out
    assert "2 without outcome, when you stopped following: they are worked all the same" in said.err
    assert queue.stats_tube().ready == 2


def test_a_rate_is_kept_and_all_are_kicked(queue: Queue, cli: Cli) -> None:
    a_heap(queue, 3)
    assert cli("kick", "--all", "--rate", "20/s", "--yes").code == 0
    assert queue.stats_tube().ready == 3


@pytest.mark.parametrize("arguments", [["--all", "--rate", "fast"], ["--all", "--rate", "0/s"], ["7", "--canary"]])
def test_a_pace_that_says_nothing_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    assert cli("kick", *arguments).code == 2


@pytest.mark.parametrize(("text", "value"), [("10/s", 10.0), ("30/m", 0.5), ("36/h", 0.01), ("0.5/s", 0.5)])
def test_rates_are_per_second(text: str, value: float) -> None:
    assert per_second(text) == pytest.approx(value)


@pytest.mark.parametrize(("count", "lots"), [(0, []), (1, [1]), (5, [1, 4]), (11, [1, 10]), (30, [1, 10, 19])])
def test_canaries_are_one_then_ten_then_the_rest(count: int, lots: list[int]) -> None:
    assert [len(lot) for lot, _ in Pace(canary=True).lots(range(count))] == lots
    assert [wait for _, wait in Pace(canary=True).lots(range(30))] == [True, True, False]
    assert [len(lot) for lot, _ in Pace().lots(range(30))] == [30]
