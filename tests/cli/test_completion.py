"""`glassq completion`, in a real bash."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from glassq.cli.main import COMMANDS
from glassq.delivery import encode
from tests.cli.conftest import NASTY, a_delivery, put
from tests.conftest import program, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

# What bash calls at a TAB; the last word is the one that is completed.
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
compopt() { echo "compopt $*"; }
_glassq_completion glassq
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a shell reads once; the command that it calls is beside it."""
    file = tmp_path_factory.mktemp("completion") / "glassq.bash"
    programs = file.parent / "bin"
    programs.mkdir()
    called = programs / "glassq"
    called.write_text(f'#!/bin/sh\nexec {shlex.join(program("glassq"))} "$@"\n')
    called.chmod(0o755)
    said = subprocess.run([*program("glassq"), "completion", "bash"], capture_output=True, text=True, check=True)
    file.write_text(said.stdout)
    return file


def tab(script: Path, *words: str, config: Path | None = None) -> list[str]:
    """What bash offers after these words; fails where anything is printed beside it."""
    named = ["--config", str(config)] if config else []
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", str(script), "glassq", *named, *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{script.parent / 'bin'}:{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def offers(script: Path, *words: str, config: Path, what: set[str]) -> None:
    """Waits for exactly that: where the machine is busy a TAB may come to nothing in time."""
    wait_for(lambda: set(tab(script, *words, config=config)) == what, f"TAB to offer {what}")


def test_commands_and_options_are_completed_without_settings(script: Path) -> None:
    assert tab(script, "st") == ["status"]
    assert set(tab(script, "")) >= {"status", "kick", "completion"}
    assert tab(script, "kick", "--ca") == ["--canary"]
    assert set(tab(script, "queues", "p")) == {"pause", "purge"}
    assert tab(script, "completion", "z") == ["zsh"]


def test_a_file_is_completed_by_the_shell(script: Path) -> None:
    assert tab(script, "--config", "/et") == ["compopt", "-o", "default"]


def test_ids_of_buried_deliveries_are_completed(script: Path, offline: Cli) -> None:
    buried, other, done = a_delivery(), a_delivery(), a_delivery()
    for each, state in ((buried, "buried"), (other, "buried"), (done, "done")):
        offline.record(each, state, reason=NASTY)
    offers(script, "kick", "", config=offline.file, what={buried.id, other.id})
    offers(script, "show", buried.id[:-1].upper(), config=offline.file, what={buried.id})
    # not the one that is there already
    offers(script, "kick", buried.id, "", config=offline.file, what={other.id})


def test_not_more_ids_are_offered_than_fit_on_a_screen(script: Path, offline: Cli) -> None:
    buried = [a_delivery() for _ in range(51)]
    for each in buried:
        offline.record(each, "buried")
    # those buried last
    offers(script, "delete", "", config=offline.file, what={each.id for each in buried[1:]})


def test_tubes_sources_and_push_queues_are_completed(script: Path, cli: Cli, queue: Queue) -> None:
    (cli.directory / "queue.yaml").write_text("queue:\n- name: mail\n- name: media\n")
    cli.configure(
        f'[push]\nqueue_yaml = "{cli.directory}/queue.yaml"\n[push.targets]\ndefault = "http://127.0.0.1:9"\n'
        '[sources.mirror]\nverify_tokens_file = "/nowhere"\n'
    )
    put(queue, a_delivery())
    queue.put(encode(a_delivery()), tube="glassq.push.mail")
    queue.put(b"theirs", tube="another")
    offers(script, "buried", "--tube", "", config=cli.file, what={"glassq", "glassq.push.mail"})
    offers(script, "buried", "--source", "", config=cli.file, what={"mirror", "push"})
    offers(script, "queues", "pause", "m", config=cli.file, what={"mail", "media"})


def test_what_cannot_be_known_is_nothing_and_no_error(script: Path, offline: Cli) -> None:
    assert tab(script, "kick", "", config=offline.file) == []
    assert tab(script, "kick", "--tube", "", config=offline.file) == []
    (offline.directory / "ledger.db").write_bytes(b"no database" * 400)
    assert tab(script, "kick", "", config=offline.file) == []
    offline.file.write_text("[worker]\nproceses = 4\n")
    for words in (["kick", ""], ["kick", "--tube", ""], ["kick", "--source", ""], ["queues", "pause", ""]):
        assert tab(script, *words, config=offline.file) == []
    # what needs no settings is there all the same
    assert tab(script, "sta", config=offline.file) == ["status"]


def test_a_queue_that_never_answers_is_not_waited_for(script: Path, offline: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        offline.url = f"beanstalk://127.0.0.1:{server.getsockname()[1]}"
        offline.configure()
        text = offline.file.read_text()
        # longer than the test would take it
        offline.file.write_text(text.replace("[queue]", '[queue]\ntimeout = "1m"\nconnect_timeout = "1m"'))
        assert tab(script, "kick", "--tube", "", config=offline.file) == []


def test_completing_a_command_imports_none() -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print([name for name in sys.modules if name in sys.argv[1:]])); "
        "from glassq.cli.main import main; main([])"
    )
    modules = {place.partition(":")[0] for place, _ in COMMANDS.values()}
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        capture_output=True,
        text=True,
        env={**os.environ, "_GLASSQ_COMPLETE": "bash_complete", "COMP_WORDS": "glassq ", "COMP_CWORD": "1"},
    )
    assert done.stdout.splitlines()[0] == "plain,status"
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(offline: Cli, shell: str) -> None:
    offline.file.unlink()
    said = offline("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert f"_GLASSQ_COMPLETE={shell}_complete" in said.out
