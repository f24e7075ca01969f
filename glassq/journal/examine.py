"""Reads the files of a journal and says what is in each, for operators. Nothing is changed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery
from glassq.journal import older
from glassq.journal.notes import read_notes
from glassq.journal.record import JournalRecord, damage_at, records
from glassq.journal.segment import claimed, notes_path, read_whole, segment_id, segments
from glassq.journal.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ExaminedFile:
    """A file: how many deliveries it has, and how many of them are to be moved on.

    `in_use`: a process writes it now, so its content was not checked. `damage` says what is wrong with it; "" nothing.
    """

    file: str
    deliveries: int
    left: int
    in_use: bool = False
    damage: str = ""


def examine(directory: Path, segments_directory: Path, damaged: Path) -> Iterator[ExaminedFile]:
    """Each segment, each delivery of an older version, and what was set aside as damaged. Raises OSError."""
    for path in segments(segments_directory):
        with claimed(path) as file:
            if file is not None:
                yield _segment(path, read_whole(file))
            elif path.exists():
                left = survey(path).left
                yield ExaminedFile(str(path), left, left, in_use=True)
    for name in older.names(directory):
        yield _delivery(directory / name, left=1)
    for path in segments(damaged):
        yield _segment(path, path.read_bytes(), moved=True)
    for name in older.names(damaged):
        yield _delivery(damaged / name, left=0)


def waiting(directory: Path, segments_directory: Path) -> Iterator[JournalRecord]:
    """All that is to be moved on, also what a process writes now. Raises OSError."""
    for path in segments(segments_directory):
        with suppress(FileNotFoundError):
            own_id = segment_id(path)
            noted = read_notes(notes_path(path), own_id)
            found = records(path.read_bytes(), own_id)
            yield from (record.bare for record in found if not noted.is_done(record.begin))
    yield from deliveries_in(directory)


def deliveries_in(directory: Path) -> Iterator[JournalRecord]:
    """The deliveries in a directory that have a file each. Raises OSError."""
    for name in older.names(directory):
        with suppress(FileNotFoundError):
            yield JournalRecord(name.removesuffix(older.SUFFIX), (directory / name).read_bytes())


def _segment(path: Path, data: bytes, *, moved: bool = False) -> ExaminedFile:
    """`moved`: all that is good in it was moved on before it was set aside."""
    found = list(records(data, segment_id(path)))
    at = damage_at(found)
    damage = "" if at is None else f"no good record at {at}, though there are later ones"
    left = 0 if moved else len(found) - read_notes(notes_path(path), segment_id(path)).done
    return ExaminedFile(str(path), len(found), left, damage=damage)


def _delivery(path: Path, *, left: int) -> ExaminedFile:
    damage = ""
    try:
        envelope.decode(path.read_bytes())
    except DamagedDelivery as error:
        damage = str(error)
    except OSError as error:
        damage = f"cannot be read: {error.strerror}"
    return ExaminedFile(str(path), 1, left, damage=damage)
