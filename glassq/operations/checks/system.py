"""What glassq stands on: versions, systemd's units, disks, and whether the clock is kept right.

A new check is a function of the Operations that yields what it saw, and a line in SYSTEM.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import glassq
from glassq.errors import EX_CONFIG, SettingsError
from glassq.operations.checks.access import database_file, mount, nearest
from glassq.operations.checks.base import Check
from glassq.operations.checks.sandbox import sandbox
from glassq.operations.checks.systemctl import ask
from glassq.queues import local_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from glassq.operations import Operations
    from glassq.settings import Settings

# A queue may take 10 MiB at a time, and a disk that fills up leaves no time for somebody to come. In bytes.
MIN_FREE = 100 << 20

_PACKAGES = ("gunicorn", "gunicorn_h1c", "falcon", "msgspec", "sqlalchemy")
_TARGET = "glassq.target"
_UNITS = ("glassq-web.socket", "glassq-web.service", "glassq-worker.service")
_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "WantedBy",
    "NeedDaemonReload",
    "Result",
    "NRestarts",
    "ExecMainCode",
    "ExecMainStatus",
    "StatusText",
    "ExecStart",
    "ExecMainStartTimestampMonotonic",
)


def versions(operations: Operations) -> Iterator[Check]:
    # the status asks for the disks alone, and this takes a while to load
    from importlib.metadata import PackageNotFoundError, version

    found = [f"glassq {glassq.__version__}", f"Python {platform.python_version()}"]
    packages = list(_PACKAGES)
    # Another check says what the queue's engine lacks.
    with suppress(SettingsError):
        packages[:0] = local_engine(operations.settings).packages
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    yield Check("versions", True, f"{', '.join(found)}; in {sys.prefix}")


def units(operations: Operations) -> Iterator[Check]:
    names = (_TARGET, *local_engine(operations.settings).units, *_UNITS)
    said, why = ask("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", *names)
    if why:
        yield Check("units", None, f"not asked: {why}")
    else:
        yield from all_units(read_units(said))


def all_units(found: list[dict[str, str]]) -> Iterator[Check]:
    """What the properties of all our units mean; one line where none is in use."""
    if not any(properties.get("LoadState") == "loaded" for properties in found):
        yield Check("units", None, "systemd runs here, but has none of glassq's units", "see docs/installing.md")
        return
    if all(
        properties["ActiveState"] == "inactive" and properties["UnitFileState"] in ("disabled", "static")
        for properties in found
    ):
        said = "none of glassq's units runs here, or starts at boot"
        yield Check("units", None, said, "systemctl enable --now glassq.target")
        return
    for properties in found:
        yield unit(properties)
        yield from another(properties)
    if stale := [properties["Id"] for properties in found if properties.get("NeedDaemonReload") == "yes"]:
        said = f"changed on disk since systemd read them: {', '.join(stale)}"
        yield Check("units", None, said, "systemctl daemon-reload")


def read_units(said: str) -> list[dict[str, str]]:
    """The properties of each unit, as `systemctl show` prints them: name=value a line, units apart by an empty line."""
    blocks = (block.splitlines() for block in said.strip().split("\n\n"))
    return [dict(line.split("=", 1) for line in block if "=" in line) for block in blocks]


def unit(properties: Mapping[str, str]) -> Check:
    """What one unit's properties mean."""
    name, active, sub = properties["Id"], properties["ActiveState"], properties["SubState"]
    loaded, boots = properties["LoadState"], properties["UnitFileState"]
    log = f"journalctl -u {name} says why"
    if loaded == "masked":
        return Check("unit", None, f"{name} is masked", f"systemctl unmask {name}, if it is to run here")
    if loaded == "not-found":
        return Check("unit", None, f"{name} is not there", "install glassq again")
    if loaded != "loaded":
        return Check("unit", False, f"{name} cannot be read ({loaded})", f"systemctl status {name} says why")
    if active == "failed":
        return Check("unit", False, f"{name} has failed ({_end(properties)}){_reason(properties)}", log)
    restarts = int(properties.get("NRestarts") or 0)
    if sub.startswith("auto-restart"):
        said = f"{name} has ended ({_end(properties)}), and systemd starts it again"
        if restarts:
            said = f"{name} ends again and again ({_end(properties)}; restarts: {restarts})"
        return Check("unit", False, said + _reason(properties), log)
    if active == "inactive":
        return _idle(name, boots)
    if active == "activating" and restarts:
        return Check("unit", False, f"{name} is starting again ({sub}; restarts: {restarts})", log)
    if active != "active":
        return Check("unit", None, f"{name} is {active} ({sub})", f"systemctl status {name} says more")
    if boots == "disabled" and _TARGET in properties.get("WantedBy", "").split():
        # as glassq-generator says, for the queue of the settings
        return Check("unit", True, f"{name} is active ({sub}), started by {_TARGET}")
    if boots == "disabled":
        return Check("unit", None, f"{name} runs, but does not start at boot", f"systemctl enable {name}")
    return Check("unit", True, f"{name} is active ({sub}), {boots}")


def _end(properties: Mapping[str, str]) -> str:
    """How its last process ended: in systemd's word, and what that was where the word does not say it."""
    result, status = properties["Result"], properties.get("ExecMainStatus") or "0"
    if result == "exit-code" and status != "0":
        meaning = ": the configuration is wrong" if int(status) == EX_CONFIG else ""
        return f"exit {status}{meaning}"
    # CLD_KILLED and CLD_DUMPED of sigaction(2)
    if result in ("signal", "core-dump") and properties.get("ExecMainCode") in ("2", "3"):
        return f"{result} {status}"
    return result


def _reason(properties: Mapping[str, str]) -> str:
    """What it said of itself last (STATUS= of sd_notify(3)), which systemd keeps until it is started again."""
    text = properties.get("StatusText", "")
    return f"; it said: {text}" if text else ""


def _idle(name: str, boots: str) -> Check:
    if boots == "static":
        return Check("unit", True, f"{name} does not run: its socket starts it when it is needed")
    if boots == "disabled":
        said = f"{name} neither runs nor starts at boot"
        return Check("unit", None, said, f"systemctl enable --now {name}, if it is to run here")
    return Check("unit", False, f"{name} does not run ({boots})", f"systemctl start {name}")


def another(properties: Mapping[str, str]) -> Iterator[Check]:
    """Whether what a unit runs is not what answers here."""
    program = re.search(r"path=(/.+?/glassq-\w+) ;", properties.get("ExecStart", ""))
    if program is None:
        return
    name, place = properties["Id"], Path(program[1]).parent
    if place.resolve() != Path(sys.prefix, "bin").resolve():
        here = f"this is glassq {glassq.__version__} in {sys.prefix}"
        yield Check("unit", None, f"{name} runs {program[1]}, but {here}", f"ask that one: {place}/glassq doctor")
        return
    started = int(properties.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    # When the file came into being here: its modification may be as old as the package.
    installed = time.monotonic() - (time.time() - Path(glassq.__file__).stat().st_ctime)
    if properties["ActiveState"] == "active" and 0 < started < installed:
        said = f"{name} was started before glassq {glassq.__version__} was installed"
        yield Check("unit", None, said, f"systemctl restart {name}")


def another_queue(operations: Operations) -> Iterator[Check]:
    """Whether a server of the queue's that is not glassq's runs beside ours, for nobody."""
    engine = local_engine(operations.settings)
    if not engine.other_unit:
        return
    said, _ = ask("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", engine.other_unit)
    for found in read_units(said):
        for fact in engine.other_server(found.get("ActiveState", ""), found.get("UnitFileState", "")):
            yield Check(fact.name, fact.ok, fact.said, fact.todo)


def disks(operations: Operations) -> Iterator[Check]:
    """Of the journal's disk the check of the journal says how full it is."""
    on: dict[Path, set[str]] = {}
    for what, path in _places(operations.settings):
        on.setdefault(mount(nearest(path.resolve())), set()).add(what)
    for place, names in sorted(on.items()):
        disk = os.statvfs(place)
        free = disk.f_bavail * disk.f_frsize
        said = f"the disk at {place} has {free >> 20} MiB free, for {' and '.join(sorted(names))}"
        if disk.f_files and not disk.f_favail:
            yield Check("disk", False, f"the disk at {place} has no inodes free", "remove files there")
        elif free < MIN_FREE:
            yield Check("disk", False, said, "make room there")
        else:
            yield Check("disk", True, said)


def _places(settings: Settings) -> Iterator[tuple[str, Path]]:
    """What is kept on disks of this machine."""
    # Another check says what is wrong with a URL.
    with suppress(SettingsError):
        if file := database_file(settings.ledger.url, "[ledger] url"):
            yield "ledger", file.parent
    if settings.storage.url.directory:
        yield "photos", settings.storage.url.directory
    yield from local_engine(settings).directories()


def clock_kept(operations: Operations) -> Iterator[Check]:
    said, why = ask("timedatectl", "show", "--property=NTPSynchronized")
    if why:
        yield Check("clock", None, f"whether it is synchronised is not known: {why}")
    elif said.strip() == "NTPSynchronized=yes":
        yield Check("clock", True, "it is synchronised")
    else:
        # Delays, ages and the order of ids are only as good as the clocks of all hosts
        yield Check("clock", None, "it is not synchronised", "timedatectl set-ntp true")


SYSTEM: list[Callable[[Operations], Iterator[Check]]] = [versions, units, sandbox, another_queue, disks, clock_kept]
