"""`glassq bury`."""

from __future__ import annotations

import json
import os
import pwd
import signal
from typing import TYPE_CHECKING, Any

import pytest

from glassq.cli.app import App
from glassq.cli.commands.bury import bury
from glassq.delivery import decode, encode
from glassq.errors import JobNotFound, QueueRefused
from tests.cli.conftest import EACH_ENGINE, a_delivery, put, put_bytes
from tests.conftest import wait_for

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

ME = pwd.getpwuid(os.getuid()).pw_name


def run(cli: Cli, *arguments: str, **environ: str) -> Any:
    return bury.main([*arguments], obj=App(str(cli.file), environ), standalone_mode=False)


@EACH_ENGINE
@pytest.mark.parametrize("where", ["ready", "delayed"])
def test_a_delivery_is_put_aside_with_who_and_why(
    queue: Queue, cli: Cli, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = a_delivery(lost=1)
    job = put(queue, told, where)
    assert run(cli, told.id, "--reason", "the API is down", "--yes", "--json") == 0
    [done] = json.loads(capsys.readouterr().out)["results"]
    assert (done["did"], done["delivery"]) == ("buried", told.id)
    assert queue.stats_job(int(done["job"])).state == "buried"
    aside = decode(queue.peek(int(done["job"])).body)
    assert aside.buried == f"put aside by {ME}: the API is down"
    assert aside.evidence[-1].message == aside.buried
    assert (aside.attempt, aside.failures, aside.lost, aside.body) == (1, 0, 1, told.body)
    with pytest.raises(JobNotFound):
        queue.stats_job(job)
    assert queue.stats_tube().delayed == queue.stats_tube().ready == 0


def test_who_is_behind_sudo_is_said(queue: Queue, cli: Cli) -> None:
    told = a_delivery()
    put(queue, told)
    assert run(cli, told.id, SUDO_USER="ada") == 0
    job = queue.peek_first("buried")
    assert job is not None
    assert decode(job.body).buried == f"put aside by ada (as {ME})"


def test_a_task_stays_in_the_tube_of_its_push_queue(queue: Queue, cli: Cli) -> None:
    job = queue.put(encode(a_delivery()), tube="glassq.push.mail")
    assert run(cli, str(job)) == 0
    assert queue.stats_tube("glassq.push.mail").buried == 1


def test_a_damaged_job_is_put_aside_as_it_is(queue: Queue, cli: Cli) -> None:
    job = put_bytes(queue, b"damaged")
    assert run(cli, str(job)) == 0
    assert queue.stats_job(job).state == "buried"
    assert queue.peek(job).body == b"damaged"


@EACH_ENGINE
@pytest.mark.parametrize(("where", "why"), [("buried", "already"), ("reserved", "a consumer works it right now")])
def test_what_does_not_wait_is_left_as_it_is(
    queue: Queue, cli: Cli, where: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = put(queue, a_delivery(), where)
    assert run(cli, str(job)) == 1
    assert why in capsys.readouterr().out
    assert queue.stats_job(job).state == where


def test_a_dry_run_and_a_foreign_tube_change_nothing(queue: Queue, cli: Cli) -> None:
    ours, foreign = put(queue, a_delivery()), queue.put(b"not ours", tube="elsewhere")
    assert run(cli, str(ours), "--dry-run") == 0
    assert run(cli, str(foreign)) == 1
    assert [queue.stats_job(job).state for job in (ours, foreign)] == ["ready", "ready"]


def test_a_queue_that_takes_no_puts_keeps_the_job_as_it_was(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    job = put(queue, a_delivery(), "delayed")
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    with pytest.raises(QueueRefused):
        run(cli, str(job))
    assert queue.stats_job(job).state == "delayed"
