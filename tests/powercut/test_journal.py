"""The intake journal, each of whose writes and syncs fails once, in a power cut: what it has promised is there."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from tests.powercut.checking import Found, read_journal
from tests.powercut.disk import Kept, replay
from tests.powercut.recording import SAID, Action, Call, Recorder, compiler, read

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler (cc)")

# Writes records by fours until twelve are promised, and says which: after trouble it goes on by itself.
PROGRAM = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from glassq import delivery as envelope
from glassq.errors import JournalError
from glassq.journal import Journal, JournalRecord
from tests.powercut.recording import say

log = os.open(os.environ["RECORDER_LOG"], os.O_WRONLY | os.O_APPEND)
journal = Journal(Path(sys.argv[1]), max_size=1 << 30, min_free=0)
number, over = 0, time.monotonic() + float(sys.argv[3])
while number < 12 and time.monotonic() < over:
    made = [envelope.new("mirror", b'{"itemId": "%d-%d"}' % (number, each), {}) for each in range(4)]
    try:
        journal.write([JournalRecord(one.id, envelope.encode(one)) for one in made])
    except JournalError:
        time.sleep(0.02)
        continue
    say(log, "kept " + " ".join(f"{number}-{each}" for each in range(4)))
    number += 1
"""


def promised_and_lost(recorder: Recorder, tmp_path: Path, seconds: float = 30.0) -> tuple[set[str], set[str]]:
    """What the journal promises, and what of it is not there after a power cut at the end."""
    root = str(envelope.__file__).rsplit("/", 2)[0]
    environment = {**os.environ, **recorder.environment("journal")}
    command = [sys.executable, "-c", PROGRAM, str(recorder.root / "journal"), root, str(seconds)]
    assert subprocess.run(command, env=environment, cwd=root).returncode in (0, -9)
    said = [event.data.decode().split() for event in read(recorder.log) if event.kind == SAID]
    kept = {ping for words in said if words[0] == "kept" for ping in words[1:]}
    *_, (_, _, disk) = replay(tmp_path / "nothing", recorder.log)
    lost: set[str] = set()
    for number, data in enumerate((Kept.NONE, Kept.CHANCE)):
        target = tmp_path / f"cut-{number}"
        disk.rebuild(target, random.Random(number), names=Kept.NONE, data=data)
        found = Found()
        read_journal(target / "journal", found)
        lost |= kept - set(found.pings)
    return kept, lost


def test_without_a_fault_all_is_promised_and_kept(recorder: Recorder, tmp_path: Path) -> None:
    kept, lost = promised_and_lost(recorder, tmp_path)
    assert (len(kept), lost) == (48, set())


def test_without_its_syncs_it_would_lose_what_it_promised(recorder: Recorder, tmp_path: Path) -> None:
    recorder.control("journal").order(Call.SYNC, action=Action.SKIP, match=".segment")
    kept, lost = promised_and_lost(recorder, tmp_path)
    assert (len(kept), len(lost)) == (48, 48)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("number", [0, 1, 2, 15, 16, 17, 20])
def test_a_write_that_fails_loses_nothing_that_was_promised(
    recorder: Recorder, tmp_path: Path, number: int, error: int
) -> None:
    recorder.control("journal").order(Call.WRITE, first=number, last=number, error=error, match="journal/")
    kept, lost = promised_and_lost(recorder, tmp_path)
    assert recorder.control("journal").seen(Call.WRITE) > number
    assert lost == set()
    assert len(kept) == 48


@pytest.mark.parametrize("number", range(8))
def test_a_sync_that_fails_loses_nothing_that_was_promised(recorder: Recorder, tmp_path: Path, number: int) -> None:
    recorder.control("journal").order(Call.SYNC, first=number, last=number, error=errno.EIO, match="segments")
    kept, lost = promised_and_lost(recorder, tmp_path)
    assert recorder.control("journal").seen(Call.SYNC) > number
    assert lost == set()
    assert len(kept) == 48


@pytest.mark.parametrize("number", [0, 4, 9])
def test_killed_at_a_sync_it_keeps_what_it_promised_before(recorder: Recorder, tmp_path: Path, number: int) -> None:
    recorder.control("journal").order(Call.SYNC, first=number, last=number, action=Action.DIE_BEFORE, match="segments")
    kept, lost = promised_and_lost(recorder, tmp_path)
    assert len(kept) < 48
    assert lost == set()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_when_nothing_can_be_written_any_more_nothing_is_promised(
    recorder: Recorder, tmp_path: Path, error: int
) -> None:
    control = recorder.control("journal")
    control.order(Call.WRITE, first=19, error=error, match="journal/")
    kept, lost = promised_and_lost(recorder, tmp_path, seconds=0.5)
    assert 0 < len(kept) < 48
    assert lost == set()
