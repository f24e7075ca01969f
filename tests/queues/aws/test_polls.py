"""Long polls in threads: nobody waits for what they bring once it is turned away, and it goes back."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from glassq.queues.aws.polls import Polls
from tests.conftest import wait_for


@dataclass
class Task:
    tube: str


def test_a_poll_has_ended_once_what_it_brought_has_gone_back() -> None:
    answer, may_go_back = threading.Event(), threading.Event()
    gone_back: list[Task] = []

    def receive(tube: str) -> list[Task]:
        answer.wait(20)
        return [Task(tube)]

    def give_back(task: Task) -> None:
        may_go_back.wait(20)
        gone_back.append(task)

    polls = Polls[Task](receive, give_back)
    polls.start(["pings"])
    polls.turn_away()
    answer.set()
    finishing = threading.Thread(target=polls.finish, args=[20.0])
    finishing.start()
    # on its way, for as long as the service takes to answer
    finishing.join(0.05)
    assert polls.runs("pings")
    assert finishing.is_alive()
    may_go_back.set()
    finishing.join(20)
    assert gone_back == [Task("pings")]
    wait_for(lambda: not polls.runs("pings"), "the poll to end")
    # and the tube can be waited at again
    polls.start(["pings"])
    wait_for(lambda: polls.take(["pings"]) == Task("pings"), "another task")
    polls.close()
