"""The file that `glassq archive` writes and `glassq restore` reads: text, one JSON document a line.

    {"format":"glassq-archive","version":2,"made":"2026-01-31T12:00:00Z","tube":"glassq"}
    {"tube":"glassq","delivery":"0199...","source":"mirror","received":"...","reason":"...","job":"17",
        "sha256":"...","base64":"..."}                                            (on one line)
    {"jobs":1,"sha256":"..."}

`base64` holds a job's bytes, in the form that delivery.py describes; the `sha256` beside it is their checksum. The last
line counts the jobs, and its `sha256` covers all bytes before it. So `head -n -1 FILE | sha256sum` checks a file
without glassq, and `jq -r .base64 | base64 -d` gets a job out of a line. The other fields are for people.

The file is written aside (.NAME.new), and renamed when it is whole and on disk: a file without the dot is never
incomplete. Only its owner can read it, as it holds what the pings hold, senders' tokens too.
A job whose body is stored says so, "body":{"size":...,"sha256":"..."}; the lines behind it hold the body
(archived_body.py). Version 1 had none.
When you change a line's form, raise VERSION, and let `read` know both versions: files are kept for years.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import msgspec
from msgspec.structs import asdict

from glassq.delivery import StoredBody, as_valid_utf8
from glassq.edited import decode
from glassq.errors import UnreadableText
from glassq.files import AsideFile, sync_directory
from glassq.operations.archived_body import BEGINNING, BodyInFile, BodyReader, lines
from glassq.operations.words import moment
from glassq.values import Tube

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from glassq.operations.archived_body import BodyParts

T = TypeVar("T")

FORMAT, VERSION, OLDER = "glassq-archive", 2, (1,)
# The longest line that is read, in bytes. Engines take smaller jobs: beanstalkd up to its -z (by default 65,535).
MAX_LINE = 1 << 26


@dataclass(frozen=True, slots=True)
class FileItem:
    """One job of a file: its tube and its bytes. `told` are the fields for people; `line` is the line's number.

    `body` is the delivery's body, if that is not in the job.
    """

    tube: str
    data: bytes
    told: dict[str, Any]
    line: int = 0
    body: BodyParts | None = None


class _First(msgspec.Struct, frozen=True):
    format: str
    version: int
    made: str = ""
    tube: str = ""


class _Job(msgspec.Struct, frozen=True):
    tube: str
    sha256: str
    base64: str
    body: StoredBody | None = None


class _Last(msgspec.Struct, frozen=True):
    jobs: int
    sha256: str


def write(path: Path, tube: str, items: Iterable[FileItem]) -> int:
    """Writes the items into a new file of this name, and returns how many there were.

    On return the file is on disk; without any item there is none. Raises OSError, and what `items` raises; then there
    is no file either.
    """
    with AsideFile(path.with_name(f".{path.name}.new")) as aside:
        try:
            count = _write(aside.file, tube, items, moment(datetime.now(UTC).replace(microsecond=0)))
            if count:
                aside.publish(path)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
    return count


def rewrite(path: Path, keep: Callable[[FileItem], bool]) -> None:
    """Writes the file anew with the items that are kept; without any it is removed. On return that is on disk.

    Raises ValueError where a line of it is wrong, and OSError; then it is as it was.
    """
    mistakes: list[str] = []
    with path.open("rb") as file:
        first, found = _decoded(_as_written(1, file.readline(MAX_LINE)), _First), os.fstat(file.fileno())
    with AsideFile(path.with_name(f".{path.name}.new"), found.st_mode & 0o777) as aside:
        owner = os.fstat(aside.file.fileno())
        if (owner.st_uid, owner.st_gid) != (found.st_uid, found.st_gid):
            # an operator acts as root
            os.fchown(aside.file.fileno(), found.st_uid, found.st_gid)
        count = _write(aside.file, first.tube, filter(keep, read(path, mistakes)), first.made)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        if count:
            aside.publish(path)
            return
    path.unlink()
    sync_directory(path.parent)


def read(path: Path, mistakes: list[str]) -> Iterator[FileItem]:
    """The items of a file whose lines are right; what is wrong with the file is added to `mistakes`.

    All mistakes are known only at the end. Raises OSError.
    """
    reading, number = _Reading(path), 0
    with path.open("rb") as file:
        for number, text in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if reading.lacks_body(text):
                mistakes.append(f"line {number}: the body of the job before it is cut off")
            try:
                item = reading.take(number, text)
            except ValueError as error:
                mistakes.append(f"line {number}: {error}")
                if number == 1:
                    # This is another kind of file: each further line would only be one more mistake.
                    return
            else:
                if item is not None:
                    yield item
    if reading.lacks_body(b""):
        mistakes.append("the body of the last job is cut off")
    if not reading.ended:
        mistakes.append(f"line {number + 1}: is missing: the file is cut off" if number else "the file is empty")


class _Reading:
    """What is known of a file so far."""

    def __init__(self, path: Path) -> None:
        self.ended = False
        self._path = path
        # where the next line begins, in bytes
        self._offset = 0
        # the job whose body is being read, and its reader
        self._awaiting: tuple[FileItem, BodyReader] | None = None
        self._digest = hashlib.sha256()
        self._jobs = 0

    def lacks_body(self, text: bytes) -> bool:
        """Whether the job before this line has a body that is not whole. It is left out."""
        lacks = self._awaiting is not None and not text.startswith(BEGINNING)
        if lacks:
            self._awaiting = None
        return lacks

    def take(self, number: int, raw: bytes) -> FileItem | None:
        """The job that is whole with this line; None for the first and the last line. Raises ValueError."""
        self._offset += len(raw)
        text = _as_written(number, raw)
        if self.ended:
            raise ValueError("stands after the last line")
        if text.startswith(b'{"jobs":'):
            self.ended = True
            self._end(text)
            return None
        self._digest.update(text)
        if not text.endswith(b"\n"):
            raise ValueError("is cut off, or longer than any line of ours")
        if number == 1:
            _check_first(text)
            return None
        if text.startswith(BEGINNING):
            return self._part(text)
        self._jobs += 1
        item, stored = _item(text, number)
        if stored is None:
            return item
        body = BodyInFile(self._path, self._offset, stored)
        self._awaiting = replace(item, body=body), BodyReader(body)
        return None

    def _part(self, text: bytes) -> FileItem | None:
        # what follows a part that was wrong has been told with it
        if self._awaiting is None:
            return None
        awaiting, self._awaiting = self._awaiting, None
        item, reader = awaiting
        if reader.take(text):
            return item
        self._awaiting = awaiting
        return None

    def _end(self, text: bytes) -> None:
        last = _decoded(text, _Last)
        if last.jobs != self._jobs:
            raise ValueError(f"says that there are {last.jobs} jobs before it; there are {self._jobs}")
        if last.sha256 != self._digest.hexdigest():
            raise ValueError("its sha256 is not that of the lines before it: some were changed")


def _as_written(number: int, text: bytes) -> bytes:
    """A line without what an editor adds when it saves the file. Raises ValueError for a file in UTF-16."""
    if number == 1:
        try:
            text = decode(text).encode()
        except UnreadableText as error:
            raise ValueError(f"is not a line of an archive: the file {error}") from None
    return text.removesuffix(b"\r\n") + b"\n" if text.endswith(b"\r\n") else text


def _write(file: BinaryIO, tube: str, items: Iterable[FileItem], made: str) -> int:
    digest, count = hashlib.sha256(), 0

    def say(document: dict[str, Any]) -> None:
        text = _line(document)
        digest.update(text)
        file.write(text)

    say({"format": FORMAT, "version": VERSION, "made": made, "tube": tube})
    for item in items:
        checksum = hashlib.sha256(item.data).hexdigest()
        body = {"body": asdict(item.body.stored)} if item.body else {}
        data = base64.b64encode(item.data).decode("ascii")
        say({"tube": item.tube, **item.told, **body, "sha256": checksum, "base64": data})
        for line in lines(item.body) if item.body else ():
            say(line)
        count += 1
    file.write(_line({"jobs": count, "sha256": digest.hexdigest()}))
    return count


def _line(document: dict[str, Any]) -> bytes:
    # In ASCII `cat` of the file moves no cursor, whatever a sender wrote.
    told = {name: as_valid_utf8(value) if isinstance(value, str) else value for name, value in document.items()}
    return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"


def _check_first(text: bytes) -> None:
    """Raises ValueError where it is no first line of ours."""
    first = _decoded(text, _First)
    if first.format != FORMAT:
        raise ValueError(f"expected the first line of a {FORMAT} file")
    if first.version not in (*OLDER, VERSION):
        raise ValueError(f"the file is of version {first.version}, this glassq knows {VERSION}")


def _item(text: bytes, number: int) -> tuple[FileItem, StoredBody | None]:
    """The job of a line, and the body whose parts follow. Raises ValueError."""
    job = _decoded(text, _Job)
    try:
        data = base64.b64decode(job.base64, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64: {error}") from None
    if hashlib.sha256(data).hexdigest() != job.sha256:
        raise ValueError(f"its sha256 is not that of its {len(data)} bytes: they were changed")
    try:
        tube = Tube(job.tube)
    except ValueError as error:
        raise ValueError(f"its tube: {error}") from None
    told = {key: value for key, value in json.loads(text).items() if key not in _Job.__struct_fields__}
    return FileItem(tube, data, told, number), job.body


def _decoded(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not a line of an archive: {error}") from None
