"""Sends the messages of [notify], in a process beside the pool's children."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq import host
from glassq.errors import NotNotified, SettingsError
from glassq.handlers.process import Limits, Tail, run
from glassq.handlers.program import PASSED, found_program
from glassq.in_effect import publish
from glassq.ledger.reader import LedgerReader
from glassq.log import fields, logger
from glassq.notify import Alerter
from glassq.push.http_client import HttpClient, split
from glassq.push.http_request import HttpRequest
from glassq.worker import sidecar
from glassq.worker.gates.report import paused_routes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from glassq.ledger import Entry
    from glassq.settings import Settings

log = logger("glassq.notify")

# How often the ledger is read, in seconds: buries of a moment go into one message.
EVERY = 2.0
# How long a message may take, in seconds.
WITHIN = 10.0
# The file of the runtime directory that says until when all has been told.
_TOLD = "told-until"


def main_of(settings: Settings) -> Callable[[], int] | None:
    """The main function of the process, which the calling process forks; None if nobody is to be told.

    Raises SettingsError if the program of [notify] on_buried cannot be run.
    """
    if settings.notify.on_buried is None:
        return None
    sender(settings, os.environ)
    parent = os.getpid()
    return lambda: work(settings, parent)


def work(settings: Settings, parent: int) -> int:
    """Sends messages until `parent` has died; SIGTERM ends it before. It may be interrupted anywhere."""
    sidecar.begin("notify")
    send = sender(settings, os.environ)
    place = os.environ.get("RUNTIME_DIRECTORY")
    directory = Path(place.partition(":")[0]) if place else None
    alerter = Alerter(
        lambda since: _buried(settings, since),
        send,
        settings.notify.at_most,
        host.name(),
        lambda: datetime.now(UTC),
        lambda: _paused(directory),
        told=read_told(directory),
        console=str(settings.console.url or ""),
    )
    noted = None

    def step() -> float:
        nonlocal noted
        alerter.step()
        if alerter.told != noted:
            noted = alerter.told
            note_told(directory, noted)
        return EVERY

    return sidecar.repeat(step, parent)


def sender(settings: Settings, environ: Mapping[str, str]) -> Callable[[dict[str, Any]], None]:
    """What sends a message: to the URL, or to the program's stdin, as JSON. It raises NotNotified.

    Raises SettingsError if the program cannot be run.
    """
    target = settings.notify.on_buried
    assert target is not None
    if target.is_url:
        return _to_url(target)
    where = f'{settings.file}: [notify] on_buried = "{target}"'
    if target.module:
        raise SettingsError(f'{where}: expected a URL, or "exec:/path/to/program"')
    try:
        found = found_program(settings, target)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None
    return _to_program([str(found), *target.command[1:]], environ)


def _buried(settings: Settings, since: datetime) -> Sequence[Entry]:
    with LedgerReader(settings.ledger) as ledger:
        return ledger.since(since, {"state": "buried"})


def read_told(directory: Path | None) -> datetime | None:
    """Until when all that was buried has been told, as the process before this one has noted it."""
    with suppress(OSError, ValueError):
        return datetime.fromisoformat((directory / _TOLD).read_text()) if directory else None
    return None


def note_told(directory: Path | None, told: datetime) -> None:
    """Notes it for the next process, which comes with every reload; it lives no longer than the runtime directory."""
    if directory is None:
        return
    try:
        publish(directory / _TOLD, told.isoformat().encode())
    except OSError as error:
        log.warning("cannot note what has been told: a reload may leave some out %s", fields(why=error))


def _paused(directory: Path | None) -> dict[str, str]:
    found = paused_routes(directory) if directory else []
    return {each.route: f"{each.failures} failures in a row: {each.why}" for each in found}


def _to_url(url: str) -> Callable[[dict[str, Any]], None]:
    client = HttpClient()
    origin, path = split(url)

    def send(message: dict[str, Any]) -> None:
        until = time.monotonic() + WITHIN
        request = HttpRequest("POST", path, {"Content-Type": "application/json"}, _json(message))
        answer = client.send(origin, request, lambda: max(0.0, until - time.monotonic()))
        if answer.failure or not 200 <= answer.status <= 299:
            # the rest of the URL may be a secret, as that of a chat's webhook
            raise NotNotified(f"{origin.host}: {answer.failure or f'answered {answer.status}'}")

    return send


def _to_program(command: Sequence[str], environ: Mapping[str, str]) -> Callable[[dict[str, Any]], None]:
    passed = {name: environ[name] for name in PASSED if name in environ}

    def send(message: dict[str, Any]) -> None:
        now, err = time.monotonic(), Tail()
        variables = {**passed, "GLASSQ_EVENT": message["event"], "GLASSQ_BURIED": str(message["buried"])}
        with os.fdopen(os.memfd_create("message"), "w+b") as stdin:
            stdin.write(_json(message))
            stdin.seek(0)
            try:
                ended = run(command, stdin, variables, Limits(now + WITHIN, now + 2 * WITHIN), Tail(), err)
            except OSError as error:
                raise NotNotified(f"{command[0]} cannot be started: {error.strerror}") from None
        if ended.interrupt is not None or ended.code:
            how = "took too long" if ended.interrupt is not None else f"exited with {ended.code}"
            raise NotNotified(f"{command[0]} {how}: {err.text()[-200:]}")

    return send


def _json(message: dict[str, Any]) -> bytes:
    # half of a character, as an odd reason may have, is written out
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "backslashreplace")
