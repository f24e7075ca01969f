"""Browsers that have signed in: a signed cookie each. The console keeps none of them, so a restart ends none.

A session ends after LONGEST, after IDLE without a request, at a logout (which ends all of that name at that door), and
with the key.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from glassq.console.keys import Key
    from glassq.console.roles import Actor

log = logger("glassq.console")

_PURPOSE = "session"
_ENDED = "ended.json"
# Whose sessions these are where nobody knows who has signed out.
_EVERYBODY = "*"
# In seconds.
LONGEST, IDLE = 12 * 3600.0, 3600.0
# So often a cookie is told that it was used, in seconds.
_RENEWED = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that has signed in as `name` by this door. Times are Unix times."""

    id: str
    name: str
    door: str
    began: float
    seen: float


class Sessions:
    """Makes and reads the cookies. `clock` tells Unix time."""

    def __init__(self, key: Key, directory: Path, clock: Callable[[], float]) -> None:
        """When whose sessions ended is in a file of the directory."""
        self._key = key
        self._file = directory / _ENDED
        self._clock = clock
        self._lock = threading.Lock()
        # until when sessions have ended, by whose they are; and which form of the file said so
        self._ended: dict[str, float] = {}
        self._form: tuple[int, int] | None = None
        self._read_ended()
        # __Host-: no other host, path or plain-http page can set it. Tunnels to several machines share one jar.
        self.cookie_name = f"__Host-glassq-{key.instance}"

    def begin(self, actor: Actor) -> str:
        """The cookie of a new session, as a Set-Cookie header has it."""
        now, whose = self._clock(), _whose(actor)
        with self._lock:
            self._read_ended()
            # where the clock was set back since a logout, nobody may be kept out until it is there again
            late = {each: math.nextafter(now, 0) for each in (whose, _EVERYBODY) if self._ended.get(each, 0.0) >= now}
            if late:
                self._write_ended(late)
        return self._cookie(Session(secrets.token_hex(8), actor.name, actor.door, now, now))

    def read(self, values: Iterable[str]) -> Session | None:
        """The session of the first of these cookies that is one of ours, and not over."""
        return next(filter(None, map(self._read, values)), None)

    def renewed(self, session: Session) -> str:
        """The cookie that says that the session was used; "" where it said so a moment ago."""
        now = self._clock()
        return self._cookie(replace(session, seen=now)) if now - session.seen > _RENEWED else ""

    def end(self, actor: Actor) -> str:
        """Ends all sessions of this name at this door, wherever their cookies are; the header that removes this one."""
        with self._lock:
            self._read_ended()
            self._write_ended({_whose(actor): self._clock()})
        return self._header("", 0)

    def _read(self, value: str) -> Session | None:
        document = self._key.read(_PURPOSE, value)
        if document is None:
            return None
        session = Session(**document)
        now = self._clock()
        if not (session.began <= session.seen <= now <= session.began + LONGEST) or now - session.seen > IDLE:
            return None
        with self._lock:
            self._read_ended()
            over = max(self._ended.get(whose, 0.0) for whose in (_whose(session), _EVERYBODY))
        return None if session.began <= over else session

    def _cookie(self, session: Session) -> str:
        document = {name: getattr(session, name) for name in Session.__dataclass_fields__}
        return self._header(self._key.sign(_PURPOSE, document), round(LONGEST))

    def _header(self, value: str, age: int) -> str:
        return f"{self.cookie_name}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Strict"

    def _read_ended(self) -> None:
        """What another process has written since, as root's own console beside the service. Needs the lock."""
        try:
            found = self._file.stat()
        except OSError:
            # nobody has signed out, or what is known must do
            return
        form = found.st_ino, found.st_mtime_ns
        if form == self._form:
            return
        self._form = form
        try:
            self._ended = {str(name): float(at) for name, at in json.loads(self._file.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            # whoever signed out before stays out: nobody's session of before counts
            log.error("all sessions end %s", fields(file=self._file, why=error))
            self._write_ended({_EVERYBODY: self._clock()})

    def _write_ended(self, more: dict[str, float]) -> None:
        """Sessions end at these times as well. Needs the lock."""
        now = self._clock()
        self._ended = {whose: at for whose, at in self._ended.items() if now - at <= LONGEST} | more
        try:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(self._ended))
            new.replace(self._file)
            found = self._file.stat()
            self._form = found.st_ino, found.st_mtime_ns
        except OSError as error:
            log.error("a logout is forgotten at the next start %s", fields(file=self._file, why=error))


def _whose(who: Actor | Session) -> str:
    """A proxy's names are no names of this machine's users."""
    return f"{who.door} {who.name}"
