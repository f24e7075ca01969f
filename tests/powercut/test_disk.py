"""The recorder and the rebuilt disk: every state that a power cut allows appears, and none that it does not."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.powercut import recording
from tests.powercut.disk import Disk, Kept
from tests.powercut.recording import Action, Call, Event, Recorder, build, compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler (cc)")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def recorder(tmp_path: Path, library: Path) -> Iterable[Recorder]:
    (tmp_path / "disk").mkdir()
    (tmp_path / "place").mkdir()
    made = Recorder(library, root=tmp_path / "disk", place=tmp_path / "place")
    yield made
    made.close()


def run(recorder: Recorder, program: str) -> int:
    """Runs a program that may use `root`, and os; returns its exit code."""
    text = f"import os\nroot = {str(recorder.root)!r}\nos.chdir(root)\n{program}"
    environment = {**os.environ, **recorder.environment("program")}
    return subprocess.run([sys.executable, "-I", "-c", text], env=environment).returncode


def states(recorder: Recorder, tmp_path: Path, look: Callable[[Path], object], *, tries: int = 300) -> set[object]:
    """What `look` sees of disks that were rebuilt at the end of the log, in every manner."""
    disk = Disk(tmp_path / "nothing")
    for index, event in enumerate(recording.read(recorder.log)):
        disk.apply(index, event)
    seen = set()
    for number in range(tries):
        chance = random.Random(number)
        target = tmp_path / f"rebuilt-{number}"
        disk.rebuild(target, chance, names=chance.choice(list(Kept)), data=chance.choice(list(Kept)))
        seen.add(look(target))
    return seen


def text_of(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).read_bytes() if (place / name).exists() else None


WRITE = "f = os.open('a', os.O_RDWR | os.O_CREAT)\n"
SYNC_ROOT = "d = os.open('.', os.O_RDONLY); os.fsync(d)\n"


def test_what_is_not_synced_is_there_or_not_and_its_name_too(recorder: Recorder, tmp_path: Path) -> None:
    assert run(recorder, WRITE + "os.write(f, b'new')") == 0
    # a size without its bytes: zeros
    assert states(recorder, tmp_path, text_of("a")) == {None, b"", b"new", bytes(3)}


def test_what_is_synced_with_its_directory_is_there(recorder: Recorder, tmp_path: Path) -> None:
    assert run(recorder, WRITE + "os.write(f, b'new'); os.fdatasync(f)\n" + SYNC_ROOT) == 0
    assert states(recorder, tmp_path, text_of("a")) == {b"new"}


def test_a_synced_file_without_a_synced_directory_may_have_no_name(recorder: Recorder, tmp_path: Path) -> None:
    assert run(recorder, WRITE + "os.write(f, b'new'); os.fsync(f)") == 0
    assert states(recorder, tmp_path, text_of("a")) == {None, b"new"}


def test_a_directory_that_is_not_synced_into_its_parent_takes_its_files_along(
    recorder: Recorder, tmp_path: Path
) -> None:
    program = "os.mkdir('d'); f = os.open('d/a', os.O_RDWR | os.O_CREAT); os.write(f, b'1'); os.fsync(f)\n"
    assert run(recorder, program + "d = os.open('d', os.O_RDONLY); os.fsync(d)") == 0
    assert states(recorder, tmp_path, text_of("d/a")) == {None, b"1"}


def test_a_write_after_the_sync_tears_at_512_bytes_in_any_order(recorder: Recorder, tmp_path: Path) -> None:
    first = WRITE + "os.pwrite(f, b'x' * 1536, 0); os.fsync(f)\n" + SYNC_ROOT
    assert run(recorder, first + "os.pwrite(f, b'y' * 1024, 256); os.pwrite(f, b'z' * 100, 256)") == 0

    def look(place: Path) -> object:
        content = (place / "a").read_bytes()
        assert len(content) == 1536
        return content[:256], content[256:512], content[512:1024], content[1024:1280], content[1280:]

    same, new, half = b"x" * 256, b"y" * 256, b"z" * 100 + b"y" * 156
    expected = {
        (same, start, middle, end, same)
        for start in (same, new, half)
        for middle in (b"x" * 512, b"y" * 512)
        for end in (same, new)
    }
    assert states(recorder, tmp_path, look) == expected


def test_a_sync_covers_what_was_written_before_it_began_and_not_what_came_meanwhile(tmp_path: Path) -> None:
    def event(kind: str, **more: object) -> Event:
        return Event(kind, 1, 0.0, ino=7, path="a", **more)  # type: ignore[arg-type]

    disk = Disk(tmp_path)
    events = [
        event("O"), event("W", length=1, data=b"1"), event("B", token=1), event("W", length=1, data=b"2"),
        event("E", token=1),
    ]  # fmt: skip
    for index, each in enumerate(events):
        disk.apply(index, each)
    inode = disk.names["a"]
    assert inode is not None
    assert {inode.rebuilt(random.Random(number), Kept.CHANCE) for number in range(50)} == {b"1", b"2"}


def test_a_rename_that_is_not_synced_shows_the_old_file_or_the_new_one(recorder: Recorder, tmp_path: Path) -> None:
    program = WRITE + "os.write(f, b'old'); os.fsync(f)\n" + SYNC_ROOT
    program += "n = os.open('.n', os.O_WRONLY | os.O_CREAT); os.write(n, b'new'); os.fsync(n)\nos.rename('.n', 'a')"
    assert run(recorder, program) == 0
    assert states(recorder, tmp_path, text_of("a")) == {b"old", b"new"}


def test_a_second_name_keeps_a_file_whose_first_is_removed(recorder: Recorder, tmp_path: Path) -> None:
    program = WRITE + "os.write(f, b'kept'); os.fsync(f); os.link('a', 'b')\n" + SYNC_ROOT + "os.unlink('a')"
    assert run(recorder, program) == 0

    def look(place: Path) -> object:
        if (place / "a").exists():
            assert (place / "a").samefile(place / "b")
        return (place / "a").exists(), (place / "b").read_bytes()

    assert states(recorder, tmp_path, look) == {(True, b"kept"), (False, b"kept")}


def test_removed_and_made_anew_is_another_file(recorder: Recorder, tmp_path: Path) -> None:
    program = WRITE + "os.write(f, b'one'); os.fsync(f)\n" + SYNC_ROOT + "os.close(f); os.unlink('a')\n"
    assert run(recorder, program + WRITE + "os.write(f, b'two'); os.fsync(f)") == 0
    assert states(recorder, tmp_path, text_of("a")) == {None, b"one", b"two"}


def test_a_file_that_was_cut_may_have_its_old_end_again(recorder: Recorder, tmp_path: Path) -> None:
    program = WRITE + "os.write(f, b'x' * 1024); os.fsync(f)\n" + SYNC_ROOT + "os.ftruncate(f, 512)"
    assert run(recorder, program) == 0
    seen = states(recorder, tmp_path, text_of("a"))
    assert seen == {b"x" * 512, b"x" * 1024, b"x" * 512 + bytes(512)}


def test_after_a_sync_that_failed_a_later_one_covers_only_what_came_since(recorder: Recorder, tmp_path: Path) -> None:
    recorder.control("program").order(Call.SYNC, last=0, error=errno.EIO, match="a")
    program = WRITE + "os.pwrite(f, b'1' * 4096, 0)\n"
    program += "try: os.fsync(f)\nexcept OSError as e: assert e.errno == 5\nelse: raise SystemExit(3)\n"
    assert run(recorder, program + "os.pwrite(f, b'2' * 4096, 4096); os.fsync(f)\n" + SYNC_ROOT) == 0
    seen = states(recorder, tmp_path, text_of("a"))
    assert bytes(4096) + b"2" * 4096 in seen
    assert all(isinstance(each, bytes) and each[4096:] == b"2" * 4096 for each in seen)


@pytest.mark.parametrize(
    ("call", "program"),
    [
        (Call.WRITE, "os.write(f, b'2')"), (Call.WRITE, "os.ftruncate(f, 0)"), (Call.SYNC, "os.fdatasync(f)"),
        (Call.CREATE, "os.open('b', os.O_WRONLY | os.O_CREAT)"), (Call.UNLINK, "os.unlink('a')"),
        (Call.RENAME, "os.rename('a', 'b')"), (Call.LINK, "os.link('a', 'b')"),
    ],
)  # fmt: skip
def test_every_call_can_be_made_to_fail_or_be_the_last(recorder: Recorder, call: Call, program: str) -> None:
    control = recorder.control("program")
    refuses = f"try: {program}\nexcept OSError as e: raise SystemExit(e.errno)\n"
    start = WRITE if call is not Call.CREATE else "f = 0\n"
    number = 1 if call is Call.WRITE else 0
    begin = start + ("os.write(f, b'1')\n" if call is Call.WRITE else "")
    control.order(call, first=number, error=errno.ENOSPC)
    assert run(recorder, begin + refuses) == errno.ENOSPC
    for action in (Action.DIE_BEFORE, Action.DIE_AFTER):
        control.order(call, first=number, action=action)
        done = sum(event.kind not in "IBE" for event in recording.read(recorder.log))
        assert run(recorder, begin + refuses) == -signal.SIGKILL
        events = [event for event in recording.read(recorder.log) if event.kind not in "IBE"]
        extra = len(events) - done - (0 if call is Call.CREATE else 1) - (1 if call is Call.WRITE else 0)
        assert extra == (1 if action is Action.DIE_AFTER and call is not Call.SYNC else 0)
        for name in ("a", "b"):
            (recorder.root / name).unlink(missing_ok=True)
    control.clear()
    assert run(recorder, begin + program) == 0


def test_a_step_of_the_clock_is_seen_at_once_and_by_its_service_alone(recorder: Recorder) -> None:
    control = recorder.control("program")
    program = "import time\nnow = time.time()\nassert abs(now - {}) < 100, now"
    control.step(-3600)
    assert run(recorder, program.format(time.time() - 3600)) == 0
    control.clear()
    assert run(recorder, program.format(time.time())) == 0


def test_what_cannot_be_rebuilt_is_refused(recorder: Recorder) -> None:
    program = WRITE + "os.write(f, b'x' * 4096)\nimport mmap\nmmap.mmap(f, 4096)[:1] = b'y'"
    assert run(recorder, program) == 0
    with pytest.raises(ValueError, match="mmap"):
        list(recording.read(recorder.log))


def test_nothing_outside_of_the_root_is_recorded_and_words_stand_in_order(recorder: Recorder, tmp_path: Path) -> None:
    recorder.say("before")
    assert run(recorder, f"open({str(tmp_path / 'other')!r}, 'w').write('x'); open('in', 'w').write('y')") == 0
    recorder.say("after")
    events = list(recording.read(recorder.log))
    assert [(event.kind, event.path) for event in events if event.kind != "A"] == [("O", "in"), ("W", "in")]
    assert (events[0].data, events[-1].data) == (b"before", b"after")
