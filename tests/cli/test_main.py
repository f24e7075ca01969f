"""How `glassq` finds commands, and what it says when something goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from glassq import __version__, errors
from glassq.cli import main as cli_main
from tests.cli.conftest import Cli, a_delivery, put
from tests.conftest import program, wait_for
from tests.journal.conftest import fill_journal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


def test_help_lists_the_commands_with_what_they_are_for(offline: Cli) -> None:
    said = offline("--help")
    assert said.code == 0
    assert "buried      Deliveries that wait for a decision" in said.out
    assert said.out.index("Look:") < said.out.index("  status ") < said.out.index("Set up:")


# Each command in a process in which none has been imported before.
HELP_OF_EACH = """
import json, os, subprocess, sys, tempfile
from glassq.cli.main import COMMANDS, main
for name in COMMANDS:
    with tempfile.TemporaryFile() as out:
        if not (pid := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.argv = ["glassq", name, "--help"]
            os._exit(main())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        print(json.dumps([name, code, out.read().decode()]), flush=True)
"""


def test_every_command_explains_itself() -> None:
    done = subprocess.run([sys.executable, "-c", HELP_OF_EACH], capture_output=True, text=True, check=True)
    told = {name: (code, said) for name, code, said in map(json.loads, done.stdout.splitlines())}
    assert set(told) == set(cli_main.COMMANDS)
    for name, (code, said) in told.items():
        assert code == 0
        assert f"Usage: glassq {name}" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--json"],
        ["show", "no-such-delivery"],
        ["kick"],
        ["config", "check"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_what_is_called_or_forked_does_what_a_start_of_python_does(
    cli: Cli, queue: Queue, arguments: list[str]
) -> None:
    put(queue, a_delivery(buried="for a reason"), "buried")
    called, started = cli(*arguments), cli.started(*arguments)
    assert called.code == started.code
    # ages and free space are numbers
    assert re.findall(r"[^\W\d]+", called.out) == re.findall(r"[^\W\d]+", started.out)
    assert re.findall(r"[^\W\d]+", called.err) == re.findall(r"[^\W\d]+", started.err)


def test_the_version_is_said(offline: Cli) -> None:
    assert offline("--version").out == f"glassq {__version__}\n"


def test_a_command_whose_module_is_not_installed_is_neither_listed_nor_found(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli_main.COMMANDS, "fly", ("glassq.cli.no_such_module:fly", "Leave the ground."))
    assert cli_main.main(["--help"]) == 0
    assert "Leave the ground" not in capfd.readouterr().out
    assert cli_main.main(["fly"]) == 2


@pytest.mark.parametrize("word", ["retry", "requeue", "redrive"])
def test_the_words_of_other_systems_do_what_our_commands_do(queue: Queue, cli: Cli, word: str) -> None:
    job = put(queue, a_delivery(buried="503"), "buried")
    said = cli(word, str(job), "--json")
    assert (said.code, said.json["results"][0]["did"]) == (0, "kicked")
    assert said.err.startswith(f"glassq: {word} is `glassq kick` here\n")
    assert queue.stats_job(job).state == "ready"


@pytest.mark.parametrize("word", sorted(cli_main.SYNONYMS))
def test_each_of_these_words_leads_to_a_command_and_stands_in_the_help(offline: Cli, word: str) -> None:
    said = offline(word, "--help")
    assert (said.code, f"Usage: glassq {cli_main.SYNONYMS[word]}" in said.out) == (0, True)
    assert word in offline("--help").out.partition("other systems")[2]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("stauts", "did you mean `glassq status`?"),
        ("Kick", "did you mean `glassq kick`?"),
        ("retyr", "did you mean `glassq kick`?"),
        ("rm", "did you mean `glassq delete`?"),
        ("frobnicate", "`glassq --help` lists them"),
    ],
)
def test_a_wrong_command_suggests_the_nearest_in_one_line(offline: Cli, typed: str, says: str) -> None:
    said = offline(typed)
    assert (said.code, said.out) == (2, "")
    assert said.err == f"glassq: there is no command {typed}; {says}\n"


def test_a_wrong_option_is_an_error_as_any_other_and_names_the_help(offline: Cli) -> None:
    said = offline("kick", "--xyz")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert (said.err.startswith("glassq: "), "--xyz" in said.err) == (True, True)
    assert said.err.endswith(" (see `glassq kick --help`)\n")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("journal", "chekc"), "journal has no command chekc; did you mean `glassq {config}journal check`?"),
        (("queues", "paus"), "queues has no command paus; did you mean `glassq {config}queues pause`?"),
        (("config", "chek"), "config has no command chek; did you mean `glassq {config}config check`?"),
        (("config", "relaod"), "config has no command relaod; `glassq {config}config --help` lists them"),
    ],
)
def test_what_is_mistyped_behind_a_command_is_one_line_of_the_same_kind(
    offline: Cli, typed: tuple[str, ...], says: str
) -> None:
    said = offline(*typed)
    assert (said.code, said.err) == (2, f"glassq: {says.format(config=f'--config {offline.file} ')}\n")


@pytest.mark.parametrize("word", list(cli_main.SUGGESTED))
def test_a_suggested_word_is_no_command_and_its_suggestion_is_one(word: str) -> None:
    assert word not in cli_main.COMMANDS
    assert cli_main.SUGGESTED[word] in cli_main.COMMANDS


def test_a_wrong_command_line_is_exit_2(offline: Cli) -> None:
    said = offline("buried", "--limit", "none")
    assert (said.code, said.out) == (2, "")
    assert "none" in said.err


def test_a_queue_that_is_not_there_is_exit_69_in_one_line(offline: Cli) -> None:
    said = offline("status")
    assert (said.code, said.out) == (69, "")
    assert "nobody.sock" in said.err
    assert "is it running" in said.err
    assert said.err.count("\n") == 1


def test_a_hint_names_the_command_for_these_settings(offline: Cli) -> None:
    assert f"`glassq --config {offline.file} doctor` looks" in offline("status").err
    done = subprocess.run(
        [*program("glassq"), "status"],
        capture_output=True,
        text=True,
        env={**os.environ, "GLASSQ_CONFIG": str(offline.file)},
    )
    assert "`glassq doctor` looks" in done.stderr


def test_a_queue_that_takes_nothing_is_exit_75(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    told, directory = a_delivery(), cli.directory / "journal"
    cli.configure(f'[intake]\njournal = "{directory}"\n')
    fill_journal(directory, [told])
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    said = cli("journal", "move-on")
    assert said.code == 75
    assert "draining" in said.err


def test_settings_that_are_wrong_are_exit_78_in_one_line(offline: Cli) -> None:
    offline.configure("[intake]\nthreds = 4\n")
    said = offline("status")
    assert said.code == 78
    assert "unknown key [intake] threds; did you mean threads?" in said.err
    assert "Traceback" not in said.err


def test_the_settings_file_may_be_named_by_the_environment(offline: Cli) -> None:
    done = subprocess.run(
        [*program("glassq"), "config", "check"],
        capture_output=True,
        text=True,
        env={"GLASSQ_CONFIG": str(offline.directory / "elsewhere.toml")},
    )
    assert done.returncode == 78
    assert "elsewhere.toml: cannot be read" in done.stderr


def test_a_reader_that_goes_away_is_no_error_message(queue: Queue, cli: Cli) -> None:
    for _ in range(300):
        put(queue, a_delivery(buried="x" * 400), "buried")
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", *program("glassq"), "--config", str(cli.file), "buried", "--limit", "300"],
        capture_output=True,
        text=True,
    )
    assert "delivery" in done.stdout
    assert done.stderr == ""


def test_ctrl_c_is_quiet_and_exit_130(offline: Cli) -> None:
    # a queue that takes the connection and never answers
    with socket.create_server(("127.0.0.1", 0)) as server:
        offline.url = f"beanstalk://127.0.0.1:{server.getsockname()[1]}"
        offline.configure()
        offline.file.write_text(offline.file.read_text().replace("[queue]", '[queue]\ntimeout = "20s"'))
        running = subprocess.Popen(
            [*program("glassq"), "--config", str(offline.file), "status"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=20)
    assert (running.returncode, out, err.strip()) == (130, "", "")


def test_status_imports_no_google_library(offline: Cli) -> None:
    code = (
        "import sys; from glassq.cli.main import main; main(sys.argv[1:]); "
        "print([name for name in sys.modules if name.split('.')[0] in ('google', 'googleapiclient', 'falcon')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", str(offline.file), "status"], capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_every_exception_of_ours_has_an_exit_code() -> None:
    def leaves(kind: type[Exception]) -> list[type[Exception]]:
        return [kind, *(each for sub in kind.__subclasses__() for each in leaves(sub))]

    codes = {
        kind.__name__: next(code for base, code, _ in cli_main.EXITS if issubclass(kind, base))
        for kind in leaves(errors.GlassqError)
        if kind.__module__ == "glassq.errors"
    }
    assert codes["SettingsError"] == codes["CredentialsError"] == 78
    assert codes["QueueUnavailable"] == 69
    assert codes["InvalidRequest"] == codes["Ambiguous"] == 2
    assert codes["NotFound"] == codes["Conflict"] == codes["Unsupported"] == 1
    assert codes["Stopped"] == 130
    assert codes["LedgerError"] == 74
    assert codes["QueueRefused"] == codes["Retry"] == 75
    assert codes["JobNotFound"] == codes["UserUnknown"] == codes["Bury"] == codes["DamagedDelivery"] == 1


def test_a_queue_url_that_leads_to_a_web_server_is_asked_about(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        cli = Cli(tmp_path, f"beanstalk://127.0.0.1:{server.server_port}")
        cli.configure()
        said = cli("buried")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (said.code, said.out) == (69, "")
    assert "the connection broke inside a reply (is that beanstalkd?)" in said.err
