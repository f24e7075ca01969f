"""glassq-web on a line to its queue that breaks: every sender has his 200 in time, and every ping arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from tests.conftest import wait_for
from tests.intake.conftest import empty
from tests.intake.test_queue_trouble import at_once
from tests.intake.wire import HEALTH, request
from tests.proxy import BACK, FREEZE, PASS, THERE, Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Beanstalkd
    from tests.intake.conftest import Web

PING = request()
READY = HEALTH.replace(b"healthz", b"readyz")


def well_again(web: Web) -> bool:
    return web.ask(READY).body == b"ready\n" and not web.journaled()


FAULTS = {
    "frozen": FREEZE,
    "replies frozen": Fault(freeze=True, ways=BACK),
    "reply cut": Fault(cut=5, ways=BACK),
    "reply cut softly": Fault(cut=5, softly=True, ways=BACK),
    "request cut": Fault(cut=40, ways=THERE),
    "cut at once": Fault(cut=0),
    "replies drip": Fault(drip=0.2, ways=BACK),
    "requests drip": Fault(drip=0.2, ways=THERE),
    "late": Fault(delay=1.5),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_whatever_the_line_does_each_ping_is_taken_in_time_and_arrives(
    beanstalkd: Beanstalkd, proxy: Proxy, start_web: Callable[..., Web], fault: Fault
) -> None:
    # with the timeouts as they are by default it takes longer, and is the same: tests/intake/test_queue_trouble.py
    web = start_web(proxy.url, queue='timeout = "500ms"\nconnect_timeout = "500ms"')
    answers = at_once(web, 4)
    proxy.set(fault)
    answers += at_once(web, 4)
    # those who come later do not wait for what is known to be broken
    answers += at_once(web, 8)
    proxy.set(PASS)
    wait_for(lambda: well_again(web), "the journal to be empty")
    answers += at_once(web, 4)
    assert [answer.status for answer in answers] == [200] * 20
    # a put that was given up may have happened: that one came twice
    came = [envelope.decode(job) for job in empty(beanstalkd)]
    assert len({delivery.id for delivery in came}) == 20
    assert {delivery.source for delivery in came} == {"mirror"}


def test_resets_again_and_again_cost_nobody_his_ping(
    beanstalkd: Beanstalkd, proxy: Proxy, start_web: Callable[..., Web]
) -> None:
    web = start_web(proxy.url)
    statuses = []
    for _ in range(15):
        statuses += [answer.status for answer in at_once(web, 4)]
        proxy.reset()
    wait_for(lambda: well_again(web), "the journal to be empty")
    assert statuses == [200] * 60
    assert len({envelope.decode(job).id for job in empty(beanstalkd)}) == 60


def test_all_is_taken_one_byte_at_a_time(beanstalkd: Beanstalkd, proxy: Proxy, start_web: Callable[..., Web]) -> None:
    proxy.set(Fault(drip=0.0))
    web = start_web(proxy.url)
    assert {answer.status for answer in at_once(web, 8)} == {200}
    wait_for(lambda: well_again(web), "all to be in the queue")
    assert len({envelope.decode(job).id for job in empty(beanstalkd)}) == 8
