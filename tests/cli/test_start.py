"""What a program refuses at its start, `config check` and `doctor` refuse before it, in the same words."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from glassq import daemons
from glassq.settings import load
from tests.conftest import ROOT, Process, free_port, program, wait_for
from tests.worker.pools import Notified

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Said

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
LOOKS = (("config", "check"), ("doctor",))
ROUTE = '[[routes]]\nsource = "mirror"\nhandler = "ours:handle"\n'


def settings(cli: Cli, more: str, *, sources: str | None = None, intake: str = "") -> None:
    """Right settings, but for what `more` adds."""
    for name, text in (("tokens", "a-token\n"), ("secret", "a-secret\n"), ("key", f"{KEY}\n")):
        (cli.directory / name).write_text(text)
        (cli.directory / name).chmod(0o600)
    (cli.directory / "ours.py").write_text("def handle(delivery): ...\n")
    mirror = f'[sources.mirror]\nverify_tokens_file = "{cli.directory}/tokens"\n'
    bind = intake or f'bind = "127.0.0.1:{free_port()}"'
    cli.configure(
        f'[intake]\njournal = "{cli.directory}/spool"\n{bind}\n{mirror if sources is None else sources}'
        f"{more.format(dir=cli.directory)}"
    )


def started(cli: Cli, name: str) -> str:
    """What the program says at its start, which fails with 78."""
    process = Process(["--config", str(cli.file)], cli.directory / f"{name}.log", forks=name)
    try:
        assert process.wait() == 78
        return process.output()
    finally:
        process.end(signal.SIGKILL)


GLASS = (
    '[glass]\nclient_id = "{id}"\nclient_secret_file = "{{dir}}/{secret}"\ncredentials_key_file = "{{dir}}/{key}"\n'
    '[[routes]]\nsource = "mirror"\nhandler = "glassq.glass.photos:store"\n'
)
REFUSED_BY_POOL = {
    "no client id": (GLASS.format(id="", secret="secret", key="key"), "[glass] client_id = "),
    "no client secret": (GLASS.format(id="c", secret="none", key="key"), "[glass] client_secret_file = "),
    "a key that is none": (GLASS.format(id="c", secret="secret", key="secret"), "[glass] credentials_key_file = "),
    "a need of a handler's own": (
        '[[routes]]\nsource = "mirror"\nhandler = "needy:handle"\n',
        "needs a file that is not there",
    ),
    "names of tasks": (ROUTE + '[push]\nnames = "nosuch:///x"\n', "[push] names = "),
    "a queue that is not there": (
        '[push]\n[[routes]]\nsource = "mirror"\nhandler = "http://127.0.0.1:9/"\nqueue = "mial"\n',
        "expected a queue of queue.yaml",
    ),
}
NEEDY = """
from glassq.errors import SettingsError
from glassq.routes import requires

def open_it(settings):
    raise SettingsError(f"{settings.file}: it needs a file that is not there")

@requires(open_it)
def handle(delivery, context): ...
"""


@pytest.mark.parametrize("case", REFUSED_BY_POOL)
def test_what_the_pool_refuses_is_refused_before_in_the_same_words(offline: Cli, case: str) -> None:
    more, says = REFUSED_BY_POOL[case]
    settings(offline, more)
    (offline.directory / "needy.py").write_text(NEEDY)
    said = offline("config", "check")
    assert said.code == 78
    (problem,) = [line.removeprefix("glassq: ") for line in said.err.splitlines() if says in line]
    # the log has it in quotes, and so without quotes within
    assert problem.replace('"', "'") in started(offline, "glassq-worker").replace('"', "'")
    assert "Traceback" not in said.out + said.err


def test_doctor_says_so_too(offline: Cli) -> None:
    settings(offline, GLASS.format(id="", secret="secret", key="key"))
    said = offline("doctor")
    assert said.code
    (line,) = [line for line in said.out.splitlines() if "[glass] client_id = " in line]
    assert line.startswith("WRONG  handler       glassq.glass.photos:store: ")


REFUSED_BY_WEB = {
    "no source": ({"sources": ""}, "no source of pings: expected a section such as [sources.mirror]"),
    "no token": (
        {"sources": '[sources.mirror]\nverify_tokens_file = "/nowhere/tokens"\n'},
        '/nowhere/tokens": the file cannot be read',
    ),
    "an address of another machine": ({"intake": 'bind = "192.0.2.1:8080"'}, "cannot be listened on: Cannot assign"),
    "a directory that is not there": (
        {"intake": 'bind = "unix:/nowhere/web.sock"'},
        "cannot be listened on: /nowhere",
    ),
}


@pytest.mark.parametrize("case", REFUSED_BY_WEB)
def test_what_the_intake_refuses_is_refused_before_in_the_same_words(offline: Cli, case: str) -> None:
    changed, says = REFUSED_BY_WEB[case]
    settings(offline, ROUTE, **changed)
    said = offline("config", "check")
    assert said.code == 78
    (problem,) = [line.removeprefix("glassq: ") for line in said.err.splitlines() if says in line]
    assert problem in started(offline, "glassq-web")


def test_a_spool_that_cannot_be_made_is_refused_and_one_that_can_is_not_made(offline: Cli) -> None:
    settings(offline, ROUTE)
    assert offline("config", "check").code == 0
    assert not (offline.directory / "spool").exists()
    (offline.directory / "spool").write_text("a file")
    said = offline("config", "check")
    assert said.code == 78
    (problem,) = [line.removeprefix("glassq: ") for line in said.err.splitlines()]
    assert problem in started(offline, "glassq-web")


def test_an_intake_that_runs_already_is_no_mistake_of_its_settings(offline: Cli) -> None:
    settings(offline, ROUTE)
    web = Process(["--config", str(offline.file)], offline.directory / "web.log", forks="glassq-web")
    try:
        wait_for(lambda: "Listening at" in web.output(), f"it to listen\n{web.output()}")
        assert offline("config", "check").err == ""
    finally:
        web.end()


def test_a_machine_that_takes_no_pings_needs_no_source(offline: Cli) -> None:
    settings(offline, "[push]\n", sources="")
    assert (offline("config", "check").code, offline("config", "check").err) == (0, "")


# -- what handlers do while they are imported ------------------------------------------------------------------------

IMPORTED = {
    "prints": "print('out')\nimport os\nos.write(1, b'more')\ndef handle(delivery): ...\n",
    "starts a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(300,)).start()\n"
    "def handle(delivery): ...\n",
    "starts a process": "import subprocess\nsubprocess.Popen(['sleep', '300'])\ndef handle(delivery): ...\n",
}


@pytest.mark.parametrize("what", IMPORTED)
def test_what_a_handler_does_at_its_import_is_in_nobodys_way(offline: Cli, what: str) -> None:
    settings(offline, ROUTE)
    (offline.directory / "ours.py").write_text(IMPORTED[what])
    said = offline("config", "check", "--json")
    assert said.code == 0
    assert said.json["ok"] is True


ENDS = {
    "exits": ("import sys\nsys.exit(0)\n", "cannot be imported: SystemExit"),
    "ends the process": ("import os\nos._exit(0)\n", "ended with exit code 0 before it had looked at all"),
    "dies": ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "ended with exit code -11"),
}


@pytest.mark.parametrize("look", LOOKS, ids=["config check", "doctor"])
@pytest.mark.parametrize("how", ENDS)
def test_a_handler_that_ends_its_process_is_named(offline: Cli, look: tuple[str, ...], how: str) -> None:
    source, says = ENDS[how]
    settings(offline, ROUTE.replace("ours", "fine") + ROUTE)
    (offline.directory / "fine.py").write_text("def handle(delivery): ...\n")
    (offline.directory / "ours.py").write_text(source)
    said = offline(*look)
    assert said.code
    (line,) = [line for line in (said.out + said.err).splitlines() if says in line]
    assert "ours:handle" in line
    assert "Traceback" not in said.out + said.err


def test_a_handler_that_never_comes_back_from_its_import_is_named(
    offline: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(offline, ROUTE.replace("ours", "fine") + ROUTE)
    (offline.directory / "fine.py").write_text("def handle(delivery): ...\n")
    pid = offline.directory / "pid"
    (offline.directory / "ours.py").write_text(
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nwhile True: time.sleep(1)\n"
    )
    monkeypatch.setattr(daemons, "CHECK_TIMEOUT", 8.0)
    (fine, hangs) = [each for each in daemons.check_worker(load(str(offline.file), {})) if each.what == "handler"]
    assert (fine.name, fine.problem) == ("fine:handle", "")
    assert hangs.name == "ours:handle"
    assert 'handler = "ours:handle": glassq-worker --check was not done after 8 s' in hangs.problem
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# -- the programs themselves, as systemd asks them ---------------------------------------------------------------------


def checked(cli: Cli, name: str) -> subprocess.CompletedProcess[str]:
    command = [*program(name), "--check", "--config", str(cli.file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["glassq-worker", "glassq-web"])
def test_a_program_says_whether_it_would_start(offline: Cli, name: str) -> None:
    settings(offline, ROUTE)
    said = checked(offline, name)
    assert (said.returncode, said.stdout, said.stderr) == (0, f"{name}: would start with these settings\n", "")
    offline.file.write_text(offline.file.read_text() + "[log]\nlevl = 4\n")
    said = checked(offline, name)
    assert (said.returncode, said.stdout) == (78, "")
    assert said.stderr.startswith(f"{name}: {offline.file}: unknown key [log] levl")
    assert started(offline, name) == said.stderr


# -- before a handler is named ---------------------------------------------------------------------------------------


@pytest.fixture
def fresh(offline: Cli) -> Cli:
    """The settings of a fresh installation, with its paths in a directory of the test's."""
    text = (ROOT / "conf" / "glassq.toml").read_text()
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{free_port()}").replace(
        "beanstalk://127.0.0.1:11300", offline.url
    )
    for metrics in ("9464", "9465"):
        text = text.replace(metrics, str(free_port()))
    for place in ("/var/spool", "/var/lib/glassq/photos", "/var/lib/glassq/ledger.db"):
        text = text.replace(place, f"{offline.directory}/{place.rpartition('/')[2]}")
    tokens = offline.directory / "mirror-verify-tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    offline.file.write_text(text.replace("/etc/glassq/secrets/mirror-verify-tokens", str(tokens)))
    return offline


def test_a_fresh_installation_asks_for_a_handler_and_for_nothing_of_glass(fresh: Cli) -> None:
    said = fresh("config", "check")
    assert said.code == 78
    assert said.err.count("\n") == 1, said.err
    line = said.err.rstrip()
    assert (
        line
        == f'glassq: {fresh.file}: no [[routes]]: expected at least one, with source and handler = "module:function"'
    )
    assert [each["said"] for each in handlers_of(fresh("doctor", "--json"))] == [line.removeprefix("glassq: ")]


def handlers_of(said: Said) -> list[dict[str, str]]:
    return [check for check in said.json["checks"] if check["name"] == "handler"]


def test_a_pool_without_a_handler_waits_for_one_and_says_so(fresh: Cli, tmp_path: Path) -> None:
    notified = Notified(tmp_path / "notify")
    (tmp_path / "handlers.py").write_text("def handle(delivery): ...\n")
    environment = {"NOTIFY_SOCKET": str(notified.path), "WATCHDOG_USEC": "100000"}
    pool = Process(["--config", str(fresh.file)], tmp_path / "log", environment, forks="glassq-worker")

    def status() -> str:
        return next((m["STATUS"] for m in reversed(notified.messages) if "STATUS" in m), "")

    try:
        wait_for(lambda: notified.has("READY"), f"it to be up\n{pool.output()}")
        assert status().startswith(f"no handler configured, pings wait in the queue: {fresh.file}: no [[routes]]")
        wait_for(lambda: notified.count("WATCHDOG") > 1, "systemd to hear that it lives")
        text = fresh.file.read_text()
        fresh.file.write_text(text + "[worker]\n")
        pool.send(signal.SIGHUP)
        wait_for(lambda: "not reloaded" in pool.output(), "a mistake to be told")
        assert pool.running()
        fresh.file.write_text(f'{text}[[routes]]\nsource = "mirror"\nhandler = "handlers:handle"\n')
        pool.send(signal.SIGHUP)
        wait_for(lambda: "pool starts processes=4" in pool.output(), f"it to begin\n{pool.output()}")
        assert pool.output().count("no handler configured") == 1
    finally:
        assert pool.end() == 0
        notified.close()


def test_a_pool_without_a_handler_stops_when_it_is_asked_to(fresh: Cli, tmp_path: Path) -> None:
    pool = Process(["--config", str(fresh.file)], tmp_path / "log", forks="glassq-worker")
    wait_for(lambda: "no handler configured" in pool.output(), f"it to be up\n{pool.output()}")
    assert pool.end() == 0
