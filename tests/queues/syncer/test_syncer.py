"""The syncer beside a real beanstalkd: what it proves, what it does not, and that nobody holds it up."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from glassq.queues.beanstalk.syncer.client import Asker
from glassq.queues.beanstalk.syncer.errors import SyncFailed
from glassq.queues.beanstalk.syncer.files import BinlogFiles
from glassq.queues.beanstalk.syncer.refusal import RefusalFile
from glassq.queues.beanstalk.syncer.rounds import OVERLAP, Rounds
from tests.conftest import PATIENCE, Beanstalkd, free_port, program, wait_for
from tests.queues.syncer.conftest import SOON, Asking, injected, numbers, prove, server_id, status


def churn(server: Beanstalkd, jobs: int, size: int = 300) -> None:
    """Puts and deletes jobs, one by one, so that files come and go."""
    with closing(server.queue()) as queue:
        for _ in range(jobs):
            queue.delete(queue.put(b"x" * size))


def put(server: Beanstalkd, jobs: int, size: int = 300) -> None:
    with closing(server.queue()) as queue:
        for _ in range(jobs):
            queue.put(b"x" * size)


# -- what it proves -----------------------------------------------------------------------------------------------


def test_a_proof_names_the_run_of_beanstalkd(server: Beanstalkd, asking: Asking) -> None:
    put(server, 1)
    assert asking.prove() == f"yes {server_id(server)}"


def test_each_question_has_its_answer_also_if_many_are_asked_ahead(server: Beanstalkd, asking: Asking) -> None:
    asking.send(b"prove\n" * 500)
    assert {asking.line() for _ in range(500)} == {f"yes {server_id(server)}"}
    assert asking.is_silent()


def test_clients_are_answered_by_the_same_rounds(server: Beanstalkd) -> None:
    server.send(signal.SIGSTOP)
    many = [Asking(server.syncer.address) for _ in range(20)]
    for each in many:
        each.send(b"prove\n")
    wait_for(lambda: status(server)["clients"] == 21, "all to be connected")
    server.send(signal.SIGCONT)
    assert {each.line() for each in many} == {f"yes {server_id(server)}"}
    for each in many:
        each.__exit__()
    assert status(server)["rounds"] < 20


@pytest.mark.parametrize("interval", ["-f0", "-f50", "-F"])
def test_a_proof_does_not_need_beanstalkds_own_syncs(tmp_path: Path, interval: str) -> None:
    server = Beanstalkd(tmp_path, options=(interval, "-s", "8192"))
    try:
        for _ in range(10):
            put(server, 10)
            assert prove(server) == f"yes {server_id(server)}"
        assert len(numbers(server, "kept")) > 3
    finally:
        server.stop()


def test_a_restart_of_beanstalkd_is_noticed(server: Beanstalkd, asking: Asking) -> None:
    first = asking.prove()
    server.stop(signal.SIGKILL, syncer=False)
    assert asking.prove().startswith("later beanstalkd cannot be asked: ")
    server.start()
    assert asking.prove() == f"yes {server_id(server)}"
    assert asking.prove() != first


def test_a_question_that_beanstalkd_died_under_is_answered(server: Beanstalkd, asking: Asking) -> None:
    asking.prove()
    server.send(signal.SIGSTOP)
    asking.send(b"prove\n")
    assert asking.is_silent()
    # it must not answer before it dies
    server.send(signal.SIGKILL)
    assert asking.line().startswith("later ")
    server.stop(syncer=False)


def test_a_syncer_that_was_killed_goes_on_where_it_was(server: Beanstalkd) -> None:
    assert prove(server).startswith("yes ")
    for _ in range(3):
        put(server, 30)
        server.syncer.stop(signal.SIGKILL)
        put(server, 30)
        server.syncer.start()
        assert prove(server) == f"yes {server_id(server)}"
    # probes of earlier syncers are deleted
    queue = server.queue()
    assert queue.stats_tube("glassq.syncer").delayed <= 2
    queue.close()


def test_a_probe_that_somebody_deleted_is_put_anew(server: Beanstalkd, asking: Asking) -> None:
    asking.prove()
    with closing(server.queue()) as queue:

        def is_missed() -> bool:
            while (probe := queue.peek_first("delayed", "glassq.syncer")) is not None:
                queue.delete(probe.id)
            return asking.prove().startswith("later beanstalkd does not take the probe (NOT_FOUND)")

        wait_for(is_missed, "a round whose probe was deleted")
        wait_for(lambda: asking.prove().startswith("yes "), "a new probe")


def test_a_beanstalkd_that_takes_no_probe_may_be_proven_later(server: Beanstalkd) -> None:
    put(server, 1)
    server.syncer.stop()
    server.syncer.start()
    server.send(signal.SIGUSR1)
    wait_for(lambda: "its disk is full, or it drains" in prove(server), "beanstalkd to drain")
    assert prove(server).startswith("later ")
    assert not status(server)["refusing"]


def test_a_new_connection_deletes_no_probe_that_is_being_put(server: Beanstalkd) -> None:
    """The other rounder's new probe is in use from its put on, not only from when that has been answered."""
    files = BinlogFiles(server.dir, OVERLAP)
    refusal = RefusalFile(server.dir.parent)
    rounds = Rounds(("127.0.0.1", server.port), files, refusal, lambda *_: None)
    first, second = rounds._free
    server.syncer.stop()
    try:
        first._connect()
        probe = rounds.probes[0]
        assert first._connection is not None
        with closing(server.queue()) as queue:
            queue.delete(int(probe))
        assert first._ask(first._connection).trouble == "NOT_FOUND"
        put_probe, connecting = first._connection.put_probe, threading.Thread(target=second._connect)

        def slow() -> bytes:
            made = put_probe()
            connecting.start()
            # it would have deleted the probe by now
            connecting.join(SOON)
            return made

        first._connection.put_probe = slow  # type: ignore[method-assign]
        assert first._ask(first._connection).trouble == ""
        connecting.join(PATIENCE)
        assert first._ask(first._connection).trouble == ""
    finally:
        for each in (first, second):
            each._close()
        for sight in files.sights:
            sight.drop()
        refusal.close()


# -- what it does not prove ---------------------------------------------------------------------------------------


def test_a_beanstalkd_without_files_proves_nothing(tmp_path: Path) -> None:
    server = Beanstalkd(tmp_path)
    try:
        server.stop(syncer=False)
        server.start(durable=False)
        assert prove(server) == "no beanstalkd does not write to its disk any more: restart it"
    finally:
        server.stop()


def test_another_directory_than_beanstalkds_proves_nothing(server: Beanstalkd, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Beanstalkd(tmp_path / "other")
    wrong = other.syncer
    try:
        wrong.stop()
        wrong._what["queue"] = str(server.url)
        wrong.start()
        assert prove(other) == f"later beanstalkd does not write into {other.dir}"
    finally:
        other.stop()


def test_files_that_were_removed_under_beanstalkd_prove_nothing(server: Beanstalkd, asking: Asking) -> None:
    put(server, 5)
    assert asking.prove().startswith("yes ")
    shutil.rmtree(server.dir)
    put(server, 1)
    assert asking.prove().startswith("later ")
    server.dir.mkdir()
    assert "is missing" in asking.prove()


def test_a_write_of_beanstalkd_that_failed_ends_the_proofs_until_it_is_restarted(server: Beanstalkd) -> None:
    assert prove(server).startswith("yes ")
    with injected(server.pid, "write", "error=EIO:when=1", server.dir / "binlog.1"):
        with pytest.raises(Exception, match="binlog failed"):
            put(server, 1)
        # answered as if nothing was
        put(server, 1)
        assert prove(server).startswith("no beanstalkd does not write to its disk any more")
    _refuses_until_a_restart(server)


def _refuses_until_a_restart(server: Beanstalkd) -> None:
    assert prove(server).startswith("no ")
    assert status(server)["refusing"]
    # a restarted syncer knows it still
    server.syncer.stop(signal.SIGKILL)
    server.syncer.start()
    assert prove(server).startswith("no ")
    assert status(server)["refusing"]
    server.stop(syncer=False)
    server.start()
    assert prove(server) == f"yes {server_id(server)}"
    assert not status(server)["refusing"]
    server.syncer.stop()
    server.syncer.start()
    assert prove(server) == f"yes {server_id(server)}"


def test_a_sync_that_failed_ends_the_proofs_until_a_restart(server: Beanstalkd) -> None:
    put(server, 1)
    assert prove(server).startswith("yes ")
    with injected(server.syncer.pid, "fdatasync", "error=EIO:when=1"):
        put(server, 1)
        assert prove(server) == "no binlog.1 could not be synced: Input/output error"
        # the kernel would say yes now
        assert prove(server) == "no binlog.1 could not be synced: Input/output error"
    assert '"files": [1]' in (server.dir / "syncer.state").read_text()
    _refuses_until_a_restart(server)


def test_the_first_sync_that_fails_is_written_down_before_another_one_begins(
    server: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, 100)
    server.syncer.stop()
    files = BinlogFiles(server.dir, 1)
    (sight,) = files.sights
    synced: list[int] = []

    def fails(descriptor: int) -> None:
        synced.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("glassq.queues.beanstalk.syncer.files._sync", fails)
    last = numbers(server, "binlog")[-1]
    with pytest.raises(SyncFailed) as failed:
        files.sync(sight, 1, last)
    sight.drop()
    assert len(synced) == 1
    assert last > 1
    # nobody hears of the errors of the others any more
    assert failed.value.files == list(range(1, last + 1))


def test_a_directory_that_could_not_be_synced_ends_the_proofs(server: Beanstalkd) -> None:
    assert prove(server).startswith("yes ")
    with injected(server.syncer.pid, "fsync", "error=EIO:when=1"):
        put(server, 50)
        wait_for(lambda: "could not be synced" in prove(server), "the syncer to refuse")
    assert prove(server).startswith("no ")


def test_a_sync_of_beanstalkd_that_failed_is_nothing_to_us(server: Beanstalkd) -> None:
    with injected(server.pid, "fsync", "error=EIO"):
        put(server, 5)
        assert prove(server) == f"yes {server_id(server)}"


def test_no_second_name_goes_while_it_refuses(server: Beanstalkd) -> None:
    put(server, 1)
    assert prove(server).startswith("yes ")
    with injected(server.syncer.pid, "fdatasync", "error=EIO:when=1"):
        assert prove(server).startswith("no ")
    churn(server, 40)
    wait_for(lambda: status(server)["spare"] > 0, "files to go")
    kept = numbers(server, "kept")
    for _ in range(3):
        assert prove(server).startswith("no ")
    assert set(kept) <= set(numbers(server, "kept"))


# -- the files ----------------------------------------------------------------------------------------------------


def test_each_file_has_a_second_name_and_loses_it_after_a_proof(server: Beanstalkd, asking: Asking) -> None:
    for _ in range(30):
        churn(server, 4)
        assert asking.prove().startswith("yes ")
        present = numbers(server, "binlog")
        for number in set(present) & set(numbers(server, "kept")):
            assert (server.dir / f"kept.{number}").samefile(server.dir / f"binlog.{number}")
    wait_for(lambda: numbers(server, "kept") == numbers(server, "binlog"), "spare names to go")
    assert numbers(server, "binlog")[0] > 1, "no file has gone"
    assert status(server)["gaps"] == 0


def test_spare_names_go_also_if_nobody_asks(server: Beanstalkd) -> None:
    for _ in range(30):
        churn(server, 4)
        prove(server)
    churn(server, 40)
    wait_for(lambda: numbers(server, "kept") == numbers(server, "binlog"), "spare names to go")


def test_a_file_that_came_and_went_unseen_is_told_once(server: Beanstalkd, asking: Asking) -> None:
    assert asking.prove().startswith("yes ")
    server.syncer.send(signal.SIGSTOP)
    churn(server, 300)
    assert numbers(server, "binlog")[0] > 3
    server.syncer.send(signal.SIGCONT)
    # the round that says no may be one that nobody asked for
    first = asking.prove()
    assert first.startswith("yes ") or (first.startswith("later ") and "came and went unseen" in first)
    assert asking.prove() == f"yes {server_id(server)}"
    assert server.syncer.log().count("came and went unseen") == 1


def test_a_second_name_of_another_file_is_put_aside_and_told(server: Beanstalkd, asking: Asking) -> None:
    assert asking.prove().startswith("yes ")
    ahead = numbers(server, "binlog")[-1] + 1
    (server.dir / f"kept.{ahead}").write_bytes(b"of another queue")
    put(server, 60)
    answers = [asking.prove()]
    assert answers[0].startswith("later ")
    assert f"kept.{ahead} was another file" in answers[0]
    assert asking.prove().startswith("yes ")
    assert (server.dir / f"foreign.{ahead}").read_bytes() == b"of another queue"
    assert (server.dir / f"kept.{ahead}").samefile(server.dir / f"binlog.{ahead}")


def test_descriptors_are_closed_when_their_files_are_proven(server: Beanstalkd, asking: Asking) -> None:
    put(server, 300)
    for _ in range(5):
        assert asking.prove().startswith("yes ")
    opened = [str(path.readlink()) for path in Path(f"/proc/{server.syncer.pid}/fd").iterdir()]
    # two for each that is current or made ahead
    assert len(numbers(server, "binlog")) > 15
    assert len([path for path in opened if "/kept." in path]) <= 12


# -- who holds it up ----------------------------------------------------------------------------------------------


def test_a_frozen_beanstalkd_holds_up_nobody_but_those_who_asked(server: Beanstalkd, asking: Asking) -> None:
    assert asking.prove().startswith("yes ")
    server.send(signal.SIGSTOP)
    asking.send(b"prove\n")
    others = [Asking(server.syncer.address) for _ in range(5)]
    for each in others:
        each.send(b"prove\n")
        assert each.is_silent()
    assert status(server)["clients"] == 7
    others.pop().__exit__()
    wait_for(lambda: status(server)["clients"] == 6, "a client that went away to be forgotten")
    server.send(signal.SIGCONT)
    assert asking.line().startswith("yes ")
    for each in others:
        assert each.line().startswith("yes ")
        each.__exit__()


@pytest.mark.parametrize(
    "line", [b"hello\n", b"prove me\n", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000, b"\xff\n"]
)
def test_who_says_anything_else_is_cut_off(server: Beanstalkd, asking: Asking, line: bytes) -> None:
    with Asking(server.syncer.address) as other:
        other.send(line)
        assert other.line() == ""
    assert asking.prove().startswith("yes ")


def test_who_does_not_read_or_asks_too_much_ahead_is_cut_off(server: Beanstalkd, asking: Asking) -> None:
    with Asking(server.syncer.address) as other:
        with pytest.raises(OSError, match=r"reset|roken"):
            for _ in range(10_000):
                other.send(b"prove\n" * 1000)
        assert asking.prove().startswith("yes ")


def test_half_a_line_is_waited_for(server: Beanstalkd, asking: Asking) -> None:
    asking.send(b"pro")
    assert asking.is_silent()
    asking.send(b"ve\nprove")
    assert asking.line().startswith("yes ")
    asking.send(b"\n")
    assert asking.line().startswith("yes ")


def test_an_older_round_never_answers_a_newer_question() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = Asker(ours)
        client.asked = 3
        assert client.answer(2, b"yes b\n") == 2
        assert client.answer(1, b"yes a\n") == 0
        assert client.answer(3, b"no c\n") == 1
        assert theirs.recv(100) == b"yes b\nyes b\nno c\n"


# -- the program --------------------------------------------------------------------------------------------------


def syncer(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*program("glassq-syncer"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_two_syncers_in_one_directory_are_refused(server: Beanstalkd) -> None:
    done = syncer("--binlog", str(server.dir), "--queue", str(server.url), "--listen", f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr) == (1, f"glassq-syncer: another syncer works in {server.dir}\n")
    assert prove(server).startswith("yes ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "--binlog is missing"),
        (("--binlog", "/nowhere"), 2, "--queue is missing"),
        (("--binlog", "/nowhere", "--queue", "beanstalk://127.0.0.1:1"), 1, "/nowhere/syncer.state: No such file"),
        (("--binlog", "{tmp}", "--queue", "beanstalk://127.0.0.1:1"), 2, "--listen is missing"),
        (("--binlog", "{tmp}", "--queue", "redis://h:1"), 2, 'expected "beanstalk://HOST:PORT"'),
        (("--binlog", "{tmp}", "--queue", "beanstalk:///q", "--listen", "h"), 2, 'expected "unix:/path/of/a.sock"'),
        (("--status", "unix:{tmp}/none"), 1, "No such file"),
        (("--status", "none"), 2, 'expected "unix:/path/of/a.sock" or "HOST:PORT"'),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = syncer(*(each.format(tmp=tmp_path) for each in arguments))
    assert done.returncode == code
    assert done.stderr.startswith("glassq-syncer: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_is_shown_and_the_socket_goes_with_a_stop(server: Beanstalkd) -> None:
    prove(server)
    shown = syncer("--status", server.syncer.address)
    assert shown.stdout.startswith("It proves what is on disk.\n           1 rounds since its start")
    assert '"rounds": ' in syncer("--status", server.syncer.address, "--json").stdout
    server.syncer.send(signal.SIGTERM)
    wait_for(lambda: not server.syncer.running(), "the syncer to end")
    assert not Path(server.syncer.address).exists()


def test_it_loads_no_library() -> None:
    code = "import sys; import glassq.programs.syncer; print(*sorted(sys.modules))"
    done = subprocess.run([*program("glassq-syncer")[:1], "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert not {"greenstalk", "msgspec", "logging", "falcon"} & set(done.stdout.split())


def test_a_thread_that_fails_ends_the_process() -> None:
    code = (
        "import threading\nfrom glassq.programs import syncer\nthreading.excepthook = syncer._end_with_thread\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()\n"
    )
    done = subprocess.run([*program("glassq-syncer")[:1], "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero: the syncer ends\n")
