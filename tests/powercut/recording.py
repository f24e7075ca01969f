"""What processes do to the files under one directory, in order (recorder.c), and faults in them on order.

recorder = Recorder(build(private), root=disk, place=private)
subprocess.Popen(command, env=os.environ | recorder.environment("beanstalkd"))
recorder.say("ping 17 acknowledged")
for event in read(recorder.log): ...
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("recorder.c")
# struct record, struct rule and the start of struct control in recorder.c
_RECORD = struct.Struct("<IBBHHHIiQQQQd")
_RULE = struct.Struct("<qqqii64s")
_CLOCK = struct.Struct("<d")
_CONTROL_SIZE = 4096

OPEN, WRITE, ZEROS, TRUNCATE, BEGIN, END = "O", "W", "Z", "T", "B", "E"
RENAME, LINK, UNLINK, MKDIR, RMDIR, FAULT, ODD = "R", "L", "U", "M", "D", "I", "X"
#: what a process of the harness says, in the order of all that happens
SAID = "A"


class Call(IntEnum):
    """The calls that a fault may hit. WRITE is every change of a file's content or size, RENAME of a name."""

    WRITE = 0
    SYNC = 1
    CREATE = 2
    UNLINK = 3
    RENAME = 4
    LINK = 5


class Action(IntEnum):
    """What a fault does: the call fails and does nothing; the process is killed before or after it.

    SKIP is for syncs: it answers well, does nothing, and is not recorded.
    """

    FAIL = 0
    DIE_BEFORE = 1
    DIE_AFTER = 2
    SKIP = 3


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `path` and `other` are below the root; `at` is on time.monotonic()."""

    kind: str
    pid: int
    at: float
    ino: int = 0
    offset: int = 0
    length: int = 0
    token: int = 0
    result: int = 0
    flags: int = 0
    path: str = ""
    other: str = ""
    data: bytes = b""


def compiler() -> str | None:
    """A C compiler of this machine, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(directory: Path) -> Path:
    """The recorder, compiled into `directory`. Raises FileNotFoundError without a compiler."""
    program = compiler()
    if program is None:
        raise FileNotFoundError("no C compiler (cc): the recorder cannot be built")
    library = directory / "recorder.so"
    subprocess.run(
        [program, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True
    )
    return library


class Recorder:
    """One log for all processes, and a control of each service."""

    def __init__(self, library: Path, *, root: Path, place: Path, records: bool = True) -> None:
        """`root` is what is recorded; log and controls are in `place`, which must not lie below it.

        Without `records` there is no log: for faults alone.
        """
        self.root = root.resolve()
        self.log = place / "record"
        self._library = library
        self._records = records
        self._place = place
        self._lock = place / "record.lock"
        self._lock.write_bytes(bytes(4096))
        self.log.touch()
        self._say = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def environment(self, service: str) -> dict[str, str]:
        """What a process of the service needs in its environment."""
        return {
            "LD_PRELOAD": str(self._library),
            "RECORDER_ROOT": str(self.root),
            **({"RECORDER_LOG": str(self.log)} if self._records else {}),
            "RECORDER_LOCK": str(self._lock),
            "RECORDER_CONTROL": str(self._control(service)),
        }

    def control(self, service: str) -> Control:
        """The faults of a service; they are in force for processes that run, too."""
        return Control(self._control(service))

    def say(self, words: str) -> None:
        """Puts words into the log."""
        say(self._say, words)

    def close(self) -> None:
        os.close(self._say)

    def _control(self, service: str) -> Path:
        file = self._place / f"{service}.control"
        if not file.exists():
            file.write_bytes(bytes(_CONTROL_SIZE))
        return file


class Control:
    """What shall go wrong in one service."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _CONTROL_SIZE)

    def step(self, seconds: float) -> None:
        """The wall clock is off by so many seconds from now on."""
        _CLOCK.pack_into(self._map, 0, seconds)

    def order(
        self, call: Call, *, first: int = 0, last: int = 1 << 62, error: int = 0,
        action: Action = Action.FAIL, match: str = "",
    ) -> None:  # fmt: skip
        """The calls from number `first` (0: the next one) up to `last`, both counted from now on, on some paths.

        `match` is a part of the path below the root; with a $ at its end, the path's end.
        """
        at = _CLOCK.size + call * _RULE.size
        # in parts: a rule without an end is not in force
        _RULE.pack_into(self._map, at, 0, 0, 0, 0, 0, b"")
        _RULE.pack_into(self._map, at, 0, first, 0, error, action, match.encode())
        struct.pack_into("<q", self._map, at + 16, last + 1)

    def clear(self) -> None:
        """Nothing goes wrong any more, and the wall clock is right."""
        for call in Call:
            struct.pack_into("<q", self._map, _CLOCK.size + call * _RULE.size + 16, 0)
        self.step(0)

    def seen(self, call: Call) -> int:
        """How many calls of this kind the present rule has counted."""
        return int(struct.unpack_from("<q", self._map, _CLOCK.size + call * _RULE.size)[0])


def say(descriptor: int, words: str) -> None:
    """Puts words into the log that is open there (O_APPEND), by one write."""
    data = words.encode()
    head = _RECORD.pack(_RECORD.size + len(data), ord(SAID), 0, 0, 0, 0, os.getpid(), 0, 0, 0, 0, 0, 0.0)
    os.write(descriptor, head + data)


def read(log: Path) -> Iterator[Event]:
    """All events, in order. Raises ValueError for what no rebuild can know."""
    content = log.read_bytes()
    at = 0
    while at < len(content):
        size, kind, flags, first, second, _, pid, result, ino, offset, length, token, when = _RECORD.unpack_from(
            content, at
        )
        names = at + _RECORD.size
        path = content[names : names + first].decode()
        other = content[names + first : names + first + second].decode()
        data = content[names + first + second : at + size]
        at += size
        if chr(kind) == ODD:
            raise ValueError(f"cannot be recorded: {path} on {other}")
        yield Event(chr(kind), pid, when, ino, offset, length, token, result, flags, path, other, data)
