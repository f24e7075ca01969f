"""Journals, a queue that remembers what was put, and other processes with the same journal."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.journal import JournalRecord
from tests.conftest import ROOT
from tests.journal.made import Sink, opened, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.journal import Journal


def fill_journal(directory: Path, deliveries: Sequence[Delivery]) -> Path:
    """The directory of a journal in which a process that is gone has left these deliveries."""
    journal = opened(directory)
    journal.write([JournalRecord(delivery.id, envelope.encode(delivery)) for delivery in deliveries])
    journal.close()
    return directory


def fill(directory: Path, number: int) -> list[str]:
    """So many records that a process that is gone has left; their keys, oldest first."""
    journal, records = opened(directory), some(number)
    journal.write(records)
    journal.close()
    return [record.key for record in records]


def files(directory: Path) -> list[str]:
    """All files but the lock, notes, and segments that are being made; those below included."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.suffix not in (".notes", ""))
    found = (path for path in found if not path.name.endswith(".segment.new"))
    return sorted(str(path.relative_to(directory)) for path in found)


def child(directory: Path, *lines: str, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Another process with the same journal, perhaps under another command, such as strace."""
    start = [
        "import os, sys, time",
        "from pathlib import Path",
        "from glassq.journal import JournalRecord",
        "from tests.journal.made import Sink, opened, some",
        f"directory = Path({str(directory)!r})",
    ]
    return subprocess.Popen(
        [*under, sys.executable, "-c", "\n".join([*start, *lines])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a buffer would keep what was read with a line, and `communicate` knows nothing of it
        bufsize=0,
        cwd=ROOT,
    )


def kill(process: subprocess.Popen[bytes]) -> bytes:
    """Kills it; what it had said."""
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    return said


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal"


@pytest.fixture
def journals(directory: Path) -> Iterator[Callable[..., Journal]]:
    """Opens journals in `directory`, closed at the end."""
    made: list[Journal] = []

    def make(**bounds: int) -> Journal:
        made.append(opened(directory, **bounds))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


@pytest.fixture
def journal(journals: Callable[..., Journal]) -> Journal:
    return journals()
