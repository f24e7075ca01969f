"""Several processes with one journal, some of which are killed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from glassq.journal.mover import PACKET
from tests.conftest import wait_for
from tests.journal.conftest import child, fill, kill
from tests.journal.made import opened

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.journal import Journal
    from tests.journal.made import Sink


def test_a_process_that_is_killed_while_it_writes_leaves_only_whole_deliveries(directory: Path, sink: Sink) -> None:
    said: list[str] = []
    for _ in range(3):
        writing = child(
            directory,
            "journal = opened(directory)",
            "while True:",
            "    records = some(3, b'x' * 3000)",
            "    journal.write(records)",
            "    print(*(record.key for record in records), flush=True)",
        )
        assert writing.stdout is not None
        lines = [writing.stdout.readline() for _ in range(30)]
        said += b"".join([*lines, kill(writing).rpartition(b"\n")[0]]).decode().split()
    journal = opened(directory)
    assert journal.move_on(sink.put) >= len(said) >= 270
    assert set(said) <= set(sink.keys())
    assert len(set(sink.keys())) == len(sink.keys())
    assert journal.look().damaged == 0
    journal.close()


def test_what_a_living_process_writes_is_moved_on_by_nobody_else(journal: Journal, directory: Path, sink: Sink) -> None:
    writing = child(
        directory,
        "journal = opened(directory)",
        "journal.write(some(3))",
        "print('written', flush=True)",
        "time.sleep(600)",
    )
    assert writing.stdout is not None
    assert writing.stdout.readline() == b"written\n"
    assert journal.look().count == 3
    assert journal.move_on(sink.put) == 0
    kill(writing)
    assert journal.move_on(sink.put) == 3


def test_a_process_that_dies_with_the_lock_hinders_nobody(journal: Journal, directory: Path, sink: Sink) -> None:
    fill(directory, 3)
    holding = child(directory, "opened(directory).move_on(lambda packet: (print('held', flush=True), time.sleep(600)))")
    assert holding.stdout is not None
    assert holding.stdout.readline() == b"held\n"
    assert journal.move_on(sink.put) == 0
    assert sink.keys() == []
    kill(holding)
    assert journal.move_on(sink.put) == 3


def test_a_process_killed_between_proof_and_note_repeats_one_packet(
    journal: Journal, directory: Path, sink: Sink
) -> None:
    keys = fill(directory, 3 * PACKET)
    dying = child(
        directory,
        "packets = []",
        "def put(packet):",
        "    packets.append(packet)",
        f"    if len(packets) == 2: os.kill(os.getpid(), {signal.SIGKILL})",
        "    return {}",
        "opened(directory).move_on(put)",
    )
    assert dying.wait(60) == -signal.SIGKILL
    dying.communicate()
    assert journal.look().count == 2 * PACKET
    assert journal.move_on(sink.put) == 2 * PACKET
    assert sink.keys() == keys[PACKET:]


def test_two_processes_that_move_on_at_once_put_nothing_twice(directory: Path, tmp_path: Path) -> None:
    keys = [key for _ in range(5) for key in fill(directory, 500)]
    put = tmp_path / "put"
    lines = [
        f"out = os.open({str(put)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)",
        "def put(packet):",
        "    os.write(out, b''.join(b'%b\\n' % record.key.encode() for record in packet))",
        "    return {}",
        "journal = opened(directory)",
        "while journal.look().count: journal.move_on(put, seconds=0.01)",
    ]
    both = [child(directory, *lines) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    assert sorted(put.read_text().split()) == sorted(keys)


def test_what_is_written_while_another_one_moves_on_is_moved_on_too(
    journal: Journal, directory: Path, sink: Sink
) -> None:
    writing = child(
        directory,
        "journal = opened(directory, max_size=1 << 22)",
        "journal.start()",
        "for number in range(200):",
        "    records = some(1, b'x' * 5000)",
        "    journal.write(records)",
        "    print(records[0].key, flush=True)",
        "    if number % 20 == 0: journal.move_on(lambda packet: os._exit(1), seconds=-1)",
        "journal.close()",
    )
    while writing.poll() is None:
        journal.move_on(sink.put)
    said, _ = writing.communicate(timeout=60)
    assert writing.returncode == 0
    journal.move_on(sink.put)
    assert len(said.split()) == 200
    assert sorted(sink.keys()) == sorted(said.decode().split())


def test_segments_of_dead_processes_with_nothing_in_them_are_removed_at_the_next_start(
    journal: Journal, directory: Path
) -> None:
    for _ in range(2):
        idle = child(directory, "opened(directory).start()", "print('up', flush=True)", "time.sleep(600)")
        assert idle.stdout is not None
        assert idle.stdout.readline() == b"up\n"
        wait_for(lambda: any((directory / "segments").glob("*.segment")), "a segment to be made ahead")
        kill(idle)
    dead = {path.name for path in (directory / "segments").glob("*.segment")}
    assert dead
    journal.start()
    wait_for(
        lambda: not dead & {path.name for path in (directory / "segments").iterdir()}, "the dead ones to be removed"
    )


def test_a_descriptor_of_a_segment_is_not_handed_to_what_the_process_starts(journal: Journal) -> None:
    journal.write([])
    journal.start()
    wait_for(lambda: journal._writer.names(), "a segment to be made ahead")  # type: ignore[arg-type,return-value]
    assert not any(os.get_inheritable(segment.file) for segment in journal._supply._ready)
