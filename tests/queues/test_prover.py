"""What a client makes of the syncer's answers. The syncer here is scripted; tests/queues/syncer/ has the real one."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.errors import NoProof, NotDurable, QueueError
from glassq.queues.beanstalk.prover import SyncerProver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 20.0
# For what must fail: in seconds.
SOON = 0.3


class ScriptedSyncer:
    """Answers each question by `answer(number of the question)`; None closes the connection, "" says nothing."""

    def __init__(self, path: Path, answer: Callable[[int], str | None]) -> None:
        self.path = path
        self.connections: list[socket.socket] = []
        self.asked = 0
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])
                threading.Thread(target=self._serve, args=(self.connections[-1],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                assert line == b"prove\n"
                self.asked += 1
                answer = self._answer(self.asked)
                if answer is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(answer.encode())

    def close(self) -> None:
        for sock in [self._listener, *self.connections]:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.path.unlink()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ScriptedSyncer]]:
    started = []

    def open_one(*answers: str | None) -> ScriptedSyncer:
        started.append(ScriptedSyncer(tmp_path / "s", lambda asked: answers[min(asked, len(answers)) - 1]))
        return started[-1]

    yield open_one
    for syncer in started:
        with suppress(OSError):
            syncer.close()


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[SyncerProver]:
    opened = SyncerProver(str(tmp_path / "s"), connect_timeout=PATIENCE)
    yield opened
    opened.close()


def soon(seconds: float = PATIENCE) -> float:
    return time.monotonic() + seconds


def test_a_yes_of_the_same_server_is_a_proof_and_the_connection_is_used_again(
    asking: SyncerProver, start: Callable[..., ScriptedSyncer]
) -> None:
    syncer = start("yes abc\n")
    for _ in range(3):
        asking.prove("abc", deadline=soon())
    assert syncer.asked == 3
    assert len(syncer.connections) == 1


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ("yes abd\n", NotDurable, "restarted before what it answered was proven"),
        ("yes\n", NotDurable, "restarted"),
        ("yes abc more\n", NotDurable, "restarted"),
        ("no a sync failed\n", NotDurable, "gives no proof: a sync failed"),
        ("later its disk is full\n", NoProof, "gives no proof now: its disk is full"),
        ("yesabc\n", NoProof, "not clear"),
        ("\n", NoProof, "not clear"),
        ("\xff\n", NoProof, "not clear"),
    ],
)
def test_any_other_answer_is_none(
    asking: SyncerProver, start: Callable[..., ScriptedSyncer], answer: str, error: type[QueueError], says: str
) -> None:
    start(answer)
    with pytest.raises(error, match=says):
        asking.prove("abc", deadline=soon())


def test_no_answer_in_time_is_no_proof_and_the_next_question_has_a_connection_of_its_own(
    asking: SyncerProver, start: Callable[..., ScriptedSyncer]
) -> None:
    syncer = start("", "yes abc\n")
    with pytest.raises(NoProof, match="no answer in time"):
        asking.prove("abc", deadline=soon(SOON))
    asking.prove("abc", deadline=soon())
    assert len(syncer.connections) == 2


def test_half_an_answer_is_none(asking: SyncerProver, start: Callable[..., ScriptedSyncer]) -> None:
    start("yes abc")
    with pytest.raises(NoProof, match="no answer in time"):
        asking.prove("abc", deadline=soon(SOON))


def test_an_answer_without_an_end_is_given_up(asking: SyncerProver, start: Callable[..., ScriptedSyncer]) -> None:
    start("y" * 100_000)
    with pytest.raises(NoProof, match="answers without an end"):
        asking.prove("abc", deadline=soon(SOON))


def test_without_a_syncer_there_is_no_proof(asking: SyncerProver) -> None:
    with pytest.raises(NoProof, match="No such file"):
        asking.prove("abc", deadline=soon(SOON))


def test_a_path_that_no_socket_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoProof, match="too long"):
        SyncerProver(f"{tmp_path}/{'x' * 200}", connect_timeout=PATIENCE).prove("abc", deadline=soon(SOON))


def test_a_syncer_that_was_restarted_is_asked_again(asking: SyncerProver, start: Callable[..., ScriptedSyncer]) -> None:
    first = start("yes abc\n")
    asking.prove("abc", deadline=soon())
    first.close()
    start("yes abc\n")
    asking.prove("abc", deadline=soon())


def test_a_syncer_that_is_just_being_restarted_is_waited_for(
    asking: SyncerProver, start: Callable[..., ScriptedSyncer]
) -> None:
    timer = threading.Timer(SOON, lambda: start(None, "yes abc\n"))
    timer.start()
    asking.prove("abc", deadline=soon())
    timer.join()


def test_threads_ask_on_connections_of_their_own(asking: SyncerProver, start: Callable[..., ScriptedSyncer]) -> None:
    syncer = start("yes abc\n")
    threads = [
        threading.Thread(target=lambda: [asking.prove("abc", deadline=soon()) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert syncer.asked == 200
    assert len(syncer.connections) <= 4


def test_a_forked_child_asks_on_a_connection_of_its_own(
    asking: SyncerProver, start: Callable[..., ScriptedSyncer]
) -> None:
    syncer = start("yes abc\n")
    asking.prove("abc", deadline=soon())
    child = os.fork()
    if child == 0:
        try:
            asking.prove("abc", deadline=soon())
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    asking.prove("abc", deadline=soon())
    assert syncer.asked == 3
    assert len(syncer.connections) == 2


def test_close_ends_the_connections_and_a_later_question_opens_another(
    asking: SyncerProver, start: Callable[..., ScriptedSyncer]
) -> None:
    syncer = start("yes abc\n")
    asking.prove("abc", deadline=soon())
    asking.close()
    asking.prove("abc", deadline=soon())
    assert len(syncer.connections) == 2
