"""`glassq` in a process that is forked where everything is imported, not started anew: that is most of its time.

What a command does and says is the same: it has a process, standard streams and an environment of its own. What is
about Python's start (a closed stream, the locale, the command's path) needs a real start.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, TYPE_CHECKING

from glassq.cli.main import COMMANDS, main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Longer than this, a command hangs; in seconds.
PATIENCE = 60.0
# This server forks; as it has one thread, what it forks is whole. It ends with the process that uses it.
_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload(
    [__name__, *(place.partition(":")[0] for place, _ in COMMANDS.values()), "glassq.ledger.sql"]
)


def run(
    arguments: Sequence[str], env: Mapping[str, str] = os.environ, standard_input: int = subprocess.DEVNULL
) -> tuple[int, str, str]:
    """Exit code (that of a signal is negative), standard output and standard error of `glassq ARGUMENTS`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
        given = nothing.fileno() if standard_input == subprocess.DEVNULL else standard_input
        # a Connection is what multiprocessing hands over with the descriptor in it, whatever that is
        streams = [Connection(os.dup(number)) for number in (given, out.fileno(), err.fileno())]
        process = _SERVER.Process(target=_run, args=(list(arguments), dict(env), str(Path.cwd()), streams))
        process.start()
        for stream in streams:
            stream.close()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"glassq {' '.join(arguments)} was not done after {PATIENCE:g} s")
        code = process.exitcode
        process.close()
        return code, _text(out), _text(err)


def _run(arguments: list[str], env: dict[str, str], directory: str, streams: list[Connection]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    # multiprocessing has replaced it
    sys.stdin = os.fdopen(0, closefd=False)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.exit(main(arguments))


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    with io.TextIOWrapper(stream) as text:
        return text.read()
