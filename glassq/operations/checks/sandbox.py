"""What the unit of the pool forbids the programs that are handlers (`exec:`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.handlers.program import path_of
from glassq.operations.checks.base import Check
from glassq.operations.checks.systemctl import POOL, ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.operations import Operations

_PROPERTIES = ("LoadState", "MemoryDenyWriteExecute", "ProtectHome", "PrivateTmp")
# The directories that these properties of a unit hide.
_HIDDEN = {"ProtectHome": ("/home", "/root", "/run/user"), "PrivateTmp": ("/tmp", "/var/tmp")}  # noqa: S108
_RELOAD = f"systemctl daemon-reload && systemctl restart {POOL}"


def sandbox(operations: Operations) -> Iterator[Check]:
    """Nothing where no handler is a program, or where systemd has no unit of the pool."""
    settings = operations.settings
    names = [name for route in settings.routes for name in route.handlers if name.is_program]
    if not names:
        return
    said, _ = ask("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", POOL)
    properties = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if properties.get("LoadState") == "loaded":
        yield from forbidden(properties, [path_of(settings, name) for name in names])


def forbidden(properties: Mapping[str, str], programs: Sequence[Path]) -> Iterator[Check]:
    """What a unit with these properties forbids these programs."""
    for name, hidden in _HIDDEN.items():
        if properties.get(name) != "yes":
            continue
        for program in dict.fromkeys(programs):
            place = next((place for place in hidden if program.is_relative_to(place)), "")
            if place:
                said = f"{program} is hidden from {POOL}, which does not see {place} ({name}=yes)"
                yield Check("program", False, said, "put it into /usr/local/bin or /etc/glassq, and name that")
    if properties.get("MemoryDenyWriteExecute") == "yes":
        said = f"{POOL} forbids machine code that is made at run time: Node.js, Java and PHP's JIT fail"
        yield Check("program", None, said, f"{_RELOAD}, which lifts that for a route with exec:")
    else:
        said = (
            f"{POOL} lets programs make machine code (Node.js, Java, PHP). They get no privileges (sudo, setuid), see "
            "no home directories, and write to /var/lib/glassq, to /tmp, and where a drop-in says"
        )
        yield Check("program", True, said)
