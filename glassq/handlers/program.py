"""A handler that is a program: `handler = "exec:/path/of/a/program ARGUMENTS"`. No shell runs.

stdin   the body of the delivery
stdout  its end is the result
stderr  its end is the evidence of a failed attempt
exit    0: done; 75 (EX_TEMPFAIL), any other code and a death by a signal: the delivery is retried. The settings may
        give other meanings to exit codes.

The environment has the delivery's facts (`environment`), and of the pool's own variables only those in PASSED.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from glassq.errors import Bury, Drop, Retry
from glassq.handlers.process import KEPT, Limits, Tail, end_marked, run
from glassq.log import fields, logger
from glassq.mask import masked_text
from glassq.settings import MAX_BODY, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from glassq.delivery import Delivery
    from glassq.handlers.process import ExitStatus
    from glassq.routes import Context, Handler
    from glassq.settings import Route, Settings
    from glassq.values import HandlerName

log = logger("glassq.worker")

# The variables of the pool that every program gets. GLASSQ_CHILD says whose it is, so that nothing is left behind.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "GLASSQ_CHILD")
# The variables that only the programs of one attempt have, with all that these start.
MARKS = ("GLASSQ_CHILD", "GLASSQ_ID", "GLASSQ_ATTEMPT")
# Maximum length of a result and of what is kept of stderr, in characters: as long as a result in the ledger.
MAX_TEXT = 2_000
# Maximum length of the line of stderr that stands in the reason, in characters.
_MAX_LINE = 200
# The meanings of exit codes that have names: sysexits.h.
_NAMES = {getattr(os, name): name for name in sorted(dir(os)) if name.startswith("EX_")}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NO_NAME = re.compile(r"[^A-Z0-9]")


def programs(settings: Settings, environ: Mapping[str, str]) -> Callable[[Route], Handler]:
    """A function that makes the handler of a route; `environ` is the pool's environment.

    The function raises ValueError, with what is wrong, for a program that is not there or cannot be run.
    """

    def make(route: Route) -> Handler:
        command = [str(found_program(settings, route.handler)), *route.handler.command[1:]]
        options = options_of(settings, route, route.handler)
        meanings = {int(code): meaning for code, meaning in options.get("exit_codes", {}).items()}
        allowed = tuple(options.get("environment", ()))
        return program(command, environ, meanings, allowed, whole=route.steps is not None)

    return make


def path_of(settings: Settings, name: HandlerName) -> Path:
    """Where the program of a handler should be: a path that is not absolute begins beside the settings."""
    home = Path(settings.file).resolve().parent if settings.file else Path.cwd()
    return home / name.command[0]


def found_program(settings: Settings, name: HandlerName) -> Path:
    """The program. Raises ValueError if it cannot be run."""
    found = path_of(settings, name)
    if not found.is_file():
        raise ValueError(f"there is no program {found}")
    if not os.access(found, os.X_OK):
        raise ValueError(f"{found} is not executable for the user that runs the pool")
    return found


def program(
    command: list[str],
    environ: Mapping[str, str],
    meanings: Mapping[int, str] | None = None,
    allowed: tuple[str, ...] = (),
    *,
    whole: bool = False,
) -> Handler:
    """A handler that runs this command. `meanings` has exit codes that mean "done", "drop", "bury" or "retry".

    It gets variables of `environ` that are in PASSED or `allowed`, as they are at that moment. With `whole`, its result
    is all of stdout, as bytes: the next step gets it.
    """
    name = Path(command[0]).name
    known = {0: "done", **(meanings or {})}

    def handler(delivery: Delivery, context: Context) -> Any:
        out, err = _Whole(name) if whole else Tail(), Tail()
        limits = Limits(context.deadline, context.hard, context.pending)
        variables = environment(delivery, context, environ, allowed)
        with context.shielded():
            try:
                with _stdin(delivery) as body:
                    ended = run(command, body, variables, limits, out, err)
            except OSError as error:
                raise Retry(f"{command[0]} cannot be started: {_why(error)}") from None
            if ended.interrupt is not None and context.in_lane:
                # other lanes of this process have programs, too
                end_marked({mark: variables[mark] for mark in MARKS if mark in variables})
            _judge(name, ended, known, err)
        if err.size:
            log.debug("wrote to stderr %s", fields(program=name, stderr=_end_of(err)))
        return out.data() if isinstance(out, _Whole) else _end_of(out) or None

    return handler


class _Whole:
    """All of an output, up to the size of the largest body."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            raise Bury(f"{self._name} wrote more than {MAX_BODY} for the next step")
        self._pieces.append(data)

    def data(self) -> bytes | None:
        return b"".join(self._pieces) or None


def environment(
    delivery: Delivery, context: Context, environ: Mapping[str, str], allowed: tuple[str, ...] = ()
) -> dict[str, str]:
    """The program's environment.

    Labels and headers get names of A-Z, 0-9 and _; of two that become one name, the first is given. No value has a
    control character.
    """
    given = {name: environ[name] for name in (*PASSED, *allowed) if name in environ}
    about = ({"GLASSQ_STEP": context.step} if context.step else {}) | {
        "GLASSQ_ID": delivery.id,
        "GLASSQ_SOURCE": delivery.source,
        "GLASSQ_ATTEMPT": str(delivery.attempt),
        "GLASSQ_RECEIVED": delivery.received.isoformat(),
        "GLASSQ_CONTENT_TYPE": delivery.content_type,
        "GLASSQ_SECONDS": f"{min(context.remaining(), 1e9):.0f}",
    }
    for kind, values in (("LABEL", delivery.labels), ("HEADER", delivery.headers)):
        for name, value in values.items():
            about.setdefault(f"GLASSQ_{kind}_{_NO_NAME.sub('_', name.upper())}", value)
    return given | {name: _CONTROL.sub(" ", value) for name, value in about.items()}


@contextmanager
def _stdin(delivery: Delivery) -> Iterator[IO[bytes]]:
    """The body as a file that a process can read: that of the body store, or one in memory."""
    with delivery.open() as body:
        with suppress(UnsupportedOperation):
            body.fileno()
            yield body
            return
        with _memory() as copy:
            shutil.copyfileobj(body, copy)
            copy.seek(0)
            yield copy


def _memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("body"), "w+b")
    return cast("IO[bytes]", tempfile.TemporaryFile())


def _judge(name: str, ended: ExitStatus, meanings: Mapping[int, str], err: Tail) -> None:
    """Returns if the work is done. Raises what stands for any other end."""
    said = _end_of(err)
    detail = {"exit": _exit(ended.code), **({"stderr": said} if said else {})}
    if ended.interrupt is not None:
        raise ended.interrupt(detail=detail)
    meaning = meanings.get(ended.code, "retry")
    if meaning == "done":
        return
    last = said.rpartition("\n")[2][:_MAX_LINE]
    reason = f"{name} {_in_words(ended.code)}{': ' if last else ''}{last}"
    raise {"drop": Drop, "bury": Bury}.get(meaning, Retry)(reason, detail=detail)


def _exit(code: int) -> int | str:
    """An exit code, or the name of the signal that ended it."""
    if code >= 0:
        return code
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _in_words(code: int) -> str:
    if code < 0:
        return f"was killed by {_exit(code)}"
    return f"exited with {code}{f' ({_NAMES[code]})' if code in _NAMES else ''}"


def _end_of(output: Tail) -> str:
    """The last MAX_TEXT characters, masked before they are cut."""
    text = masked_text(output.text())
    cut = output.size > KEPT or len(text) > MAX_TEXT
    return f"... {text[-(MAX_TEXT - 4) :]}" if cut else text


def _why(error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return "it is no program of this machine, or a script whose first line is not #! and an interpreter"
    return error.strerror or str(error)
