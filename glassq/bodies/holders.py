"""The intake journals and queues that may name bodies of a store. Several hosts may share the store, and none reads
another's journal; while deliveries move to another engine, two queues share it.

DIR/holders/ID   the journal or queue with this id: the time before which it names no body, and whose it is

Whoever writes the journal says that anew every few minutes; while deliveries wait in it, the time stands still. So the
sweep of another host knows which bodies it must leave alone, also while the journal's own host is down. A queue may
name any body; intake and pool say that of theirs (queue_holder.py).
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from glassq.files import make_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "holders"


class Holder(NamedTuple):
    """A journal or a queue that may name each body that was touched at `since` or later (Unix time).

    `seen` is when it said so; `about` is whose it is, for people.
    """

    key: str
    since: float
    seen: float
    about: str


def hold(directory: Path, key: str, since: float | None, about: str) -> None:
    """Says that this journal or queue names no body of before `since` (None: as before); a loss of power may lose that.

    Raises OSError.
    """
    place = directory / NAME / key
    make_directory(place.parent)
    if since is None:
        since = _holder(place).since if place.exists() else 0.0
    # several processes may say it at once
    new = place.with_name(f".{key}.{os.urandom(4).hex()}.new")
    new.write_text(as_text(since, about), "utf-8")
    if os.geteuid() == 0:
        # an operator acts as root
        owner = directory.stat()
        for each in (place.parent, new):
            os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
    new.replace(place)


def holders(directory: Path) -> Iterator[Holder]:
    """All journals and queues of which this is known. One whose file is torn may name any body. Raises OSError."""
    with suppress(FileNotFoundError):
        for place in sorted((directory / NAME).iterdir()):
            if place.name[0] != ".":
                yield _holder(place)


def _holder(place: Path) -> Holder:
    return from_text(place.name, place.read_text("utf-8", "replace"), place.stat().st_mtime)


def as_text(since: float, about: str) -> str:
    """What is written down of a journal or a queue."""
    return f"{since:.0f} {about}\n"


def from_text(key: str, text: str, seen: float) -> Holder:
    """What was written down at `seen`. Of a text that is torn it may name any body."""
    since, _, about = text.strip().partition(" ")
    try:
        known = float(since)
    except ValueError:
        known = math.nan
    return Holder(key, known if math.isfinite(known) else 0.0, seen, about or key)


def drop(directory: Path, key: str) -> None:
    """Forgets a journal or a queue. Raises OSError."""
    (directory / NAME / key).unlink(missing_ok=True)
