"""`glassq dev`: in any directory, at any address; what it prints can be pasted; it reloads what changes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from glassq.cli.commands.dev import new_sections
from glassq.dev.stack import write_settings
from glassq.settings import as_toml, load
from glassq.values import Bind
from tests import forked
from tests.cli.conftest import working_in
from tests.conftest import Process, free_port, program, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

# the end of the last line that it says when it is ready
READY = " status\n"
# the console's link
CONSOLE = re.compile(r"http://127\.0\.0\.1:\d+/login\?code=\S+")

#: names of directories, each with a form of address, and the signal that ends it there
ODD = {
    "quotes": ('it\'s "my" $HOME #1', "[::1]:{port}", signal.SIGINT),
    "escapes": ("100%41? \\ `x` é", "unix:{home}/a b#%41.sock", signal.SIGTERM),
    "newline": ("two\nlines", "localhost:{port}", signal.SIGHUP),
    "deep": ("/".join(["deep" * 10] * 4), "0.0.0.0:{port}", signal.SIGINT),
}


@contextmanager
def dev(
    home: Path,
    *options: str,
    env: dict[str, str] | None = None,
    end: signal.Signals = signal.SIGINT,
    forks: bool = True,
    console: bool = False,
) -> Iterator[Process]:
    """It runs in `home`, with its output beside its state, until this signal; then nothing of it may be left.

    It forks its programs, and is forked itself, unless it has to be a Python of its own. Without the console it is up
    sooner.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"dev-{len(list(home.glob('*.log')))}.log"
    process = started(log, *options, env=env, forks=forks, console=console)
    try:
        wait_for(lambda: READY in process.output() or not process.running(), "glassq dev to be ready")
        assert process.running(), process.output()
        # the intake and its worker, the pool, the queue, its syncer
        assert len(working_in(home)) > 5
        yield process
    finally:
        code = process.end(end)
    assert code == 0, process.output()
    assert not working_in(log.parent)


def started(
    log: Path, *options: str, env: dict[str, str] | None = None, forks: bool = True, console: bool = False
) -> Process:
    """It runs in the directory of this file, to which it writes."""
    words = ["dev", *([] if console else ["--no-console"]), *options]
    if forks:
        return Process(words, log, env, cwd=log.parent, forks="glassq")
    return Process([*program("glassq"), *words], log, env, cwd=log.parent)


def printed(process: Process) -> tuple[str, str]:
    """The first and the last command line that it offers: one sends a ping, one asks for the status."""
    found = offered(process)
    return found[0], found[-1]


def offered(process: Process) -> list[str]:
    """All of them."""
    found = re.search(r"^try:   (\S.*? status)$", process.output(), re.MULTILINE | re.DOTALL)
    assert found, process.output()
    return found[1].split("\n       ")


def paste(command: str, home: Path) -> str:
    """What is said to it when it is pasted into a shell, which reads the line; `glassq` is forked with its words."""
    script = command.replace(shlex.quote(program("glassq")[1]), "printf '%s\\0'")
    done = subprocess.run(["sh", "-c", script], cwd=home, capture_output=True, text=True, timeout=60)
    code, out, err = done.returncode, done.stdout, done.stderr
    if script != command:
        code, out, err = forked.run(out.split("\0")[:-1], cwd=home)
    assert code == 0, (script, out, err)
    return out


def worked(process: Process, times: int = 1) -> bool:
    return process.output().count(" done delivery=") >= times


@pytest.mark.parametrize("case", ODD)
def test_it_works_in_a_directory_of_any_name_at_any_address_and_its_lines_can_be_pasted(
    tmp_path: Path, case: str
) -> None:
    name, form, end = ODD[case]
    home = tmp_path / name
    home.mkdir(parents=True)
    # what is started, not forked, must not be shadowed by the working directory
    for module in ("click", "gunicorn"):
        (home / f"{module}.py").write_text("raise SystemExit('shadowed')\n")
    bind = form.format(port=free_port("::1" if "::1" in form else "127.0.0.1"), home=tmp_path)
    # curl would ask this proxy, which is not there
    nowhere = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
    with dev(home, "--bind", bind, env=nowhere, end=end, forks=case != "quotes", console=True) as process:
        ping, status = printed(process)
        assert "200 OK" in paste(ping, home)
        wait_for(lambda: worked(process), "the ping to be worked")
        wait_for(lambda: "1 done" in told(home), "the ledger to have it, a moment later")
        assert "1 done" in paste(status, home)
        assert (home / "var" / "ledger.db").exists()
        (github,) = [command for command in offered(process) if command.endswith("ping github")]
        assert re.match(r"200 in [0-9.]+ ms .*event=push .*\ndelivery [0-9a-f-]+: done: ", paste(github, home))


def test_its_console_signs_in_by_its_link_and_is_there_again_when_it_died(tmp_path: Path) -> None:
    # no other glassq dev takes this one while the console is away
    port = free_port()
    options = ["dev", "--bind", f"127.0.0.1:{free_port()}", "--console-port", str(port)]
    process = Process(options, tmp_path / "dev.log", None, cwd=tmp_path, forks="glassq")
    try:
        wait_for(lambda: CONSOLE.search(process.output()) or not process.running(), "the link")
        link = CONSOLE.search(process.output())
        assert link, process.output()
        assert f":{port}/" in link[0]
        assert "Sign in as" in page(link[0])
        killed = consoles(tmp_path)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert killed
        wait_for(lambda: "Sign in" in page(link[0].partition("?")[0]), "the console to be there again")
        assert process.running(), process.output()
    finally:
        code = process.end(signal.SIGINT)
    assert code == 0, process.output()
    assert not working_in(tmp_path)


def page(url: str) -> str:
    """The page there; "" while nobody answers."""
    try:
        with urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def consoles(home: Path) -> list[int]:
    """The processes of the console of this directory, from their first moment on."""
    # a process of tests.forked has the words of the server that it was forked from, which loads all programs
    names = re.compile(rb"gunicorn: .*\[glassq-console\]|\0(glassq\.programs\.console|[^\0]*/glassq-console)\0")
    return [pid for pid in working_in(home) if names.search(Path(f"/proc/{pid}/cmdline").read_bytes())]


def test_ctrl_c_while_the_console_starts_is_a_stop_as_any_other(tmp_path: Path) -> None:
    # a console that is not forked takes its time to start
    process = started(tmp_path / "dev.log", "--bind", f"127.0.0.1:{free_port()}", forks=False, console=True)
    wait_for(lambda: consoles(tmp_path) or not process.running(), "the console to be started")
    # it is not to be ready before the signal comes
    starting = consoles(tmp_path)
    for pid in starting:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert READY not in process.output()
        process.send(signal.SIGINT)
        wait_for(lambda: "stopping: what is being worked" in process.output(), "it to stop")
    finally:
        for pid in starting:
            os.kill(pid, signal.SIGCONT)
    assert process.wait(60) == 0, process.output()
    assert process.output().endswith("stopped\n")
    assert not working_in(tmp_path)


def test_it_serves_a_socket_that_it_was_handed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(server.fileno(), True)
        command = [*program("glassq"), "dev", "--no-console", "--bind", f"fd://{server.fileno()}"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, pass_fds=[server.fileno()])
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"ready: POST http://127.0.0.1:{server.getsockname()[1]}/")
            assert "200 OK" in paste(process.stdout.readline().removeprefix("try:"), tmp_path)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
    assert process.returncode == 0


def test_new_settings_keep_everything_in_their_directory(tmp_path: Path) -> None:
    write_settings(tmp_path, new_sections(tmp_path, Bind(f"127.0.0.1:{free_port()}")), "handlers:handle")
    text = as_toml(load(str(tmp_path / "glassq.toml"), {}))
    assert f'names = "sqlite:///{tmp_path}/task-names.db"' in text
    # what root's directories hold: secrets of Google Glass, which nobody can write for the user
    assert re.findall(r"^(\w+) = .*/(?:var/lib|var/spool|var/cache|run|etc)/", text, re.MULTILINE) == [
        "client_secret_file",
        "credentials_key_file",
    ]


def test_a_queue_on_ipv6_is_started_there_and_no_ping_is_offered_that_only_the_sender_can_sign(tmp_path: Path) -> None:
    bind, url = f"127.0.0.1:{free_port()}", f"beanstalk://[::1]:{free_port('::1')}"
    var = tmp_path / "var"
    here = {"ledger": {"url": f"sqlite:///{var}/ledger.db"}, "bodies": {"url": f"file://{var}/bodies"}}
    sections = {"intake": {"bind": bind}, "queue": {"url": url}, "sources.sns": {"account": "123456789012"}, **here}
    write_settings(var, sections, "handlers:handle")
    (tmp_path / "var" / "handlers.py").write_text("def handle(delivery):\n    return 'done'\n")
    with dev(tmp_path) as process:
        assert [command.split(" ")[-1] for command in offered(process)] == ["mirror", "status"]
        assert "200 in" in paste(printed(process)[0], tmp_path)
        wait_for(lambda: worked(process), "the ping to be worked")


@pytest.mark.parametrize(
    ("bind", "code", "says"),
    [
        ("nonsense", 2, 'expected "HOST:PORT", "unix:/path/of/a.sock" or "fd://N"'),
        ("127.0.0.1:0", 1, "expected a port"),
        ("fd://99", 1, "expected a socket that glassq dev inherited"),
        (f"unix:/tmp/{'x' * 120}", 2, "at most 10"),
    ],
)
def test_an_address_that_cannot_be_is_refused_and_no_settings_are_left(
    tmp_path: Path, bind: str, code: int, says: str
) -> None:
    ended, _, err = forked.run(["dev", "--bind", bind], cwd=tmp_path)
    assert ended == code
    assert says in err
    assert not (tmp_path / "var").exists()


def test_a_directory_that_settings_cannot_name_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    code, _, err = forked.run(["dev", "--dir", home, "--bind", f"127.0.0.1:{free_port()}"])
    assert code == 1
    assert "not UTF-8: choose another --dir" in err
    assert not Path(home).exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = ["dev", "--dir", str(tmp_path / "file" / "var"), "--bind", f"127.0.0.1:{free_port()}"]
    assert forked.run(command) == (1, "", f"glassq: {tmp_path}/file/var: Not a directory\n")


@pytest.mark.parametrize("command", ["dev", "demo"])
def test_a_directory_that_is_none_is_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    for path in (str(tmp_path / "file"), "/dev/null"):
        code, _, err = forked.run([command, "--dir", path])
        assert (code, f"'{path}' is not a directory" in err) == (2, True)


def test_a_change_is_reloaded_and_one_that_is_wrong_is_explained(tmp_path: Path) -> None:
    with dev(tmp_path, "--bind", f"127.0.0.1:{free_port()}") as process:
        ping, home = printed(process)[0], tmp_path / "var"
        handlers, config = home / "handlers.py", home / "glassq.toml"
        (home / "words.py").write_text("SAID = 'one'\n")
        handlers.write_text("import words\n\n\ndef handle(delivery):\n    return words.SAID\n")
        config.write_text(config.read_text() + "[worker]\nprocesses = 1\n")
        says(process, r"^glassq.toml, handlers.py, words.py changed: reloading$")
        says(process, r"reloading .*processes=1")
        says(process, r"^glassq.toml, handlers.py, words.py: in effect$")
        assert answers(process, ping, "one")
        # of the same length, within the same second
        (home / "words.py").write_text("SAID = 'two'\n")
        says(process, r"^words.py changed: reloading$")
        says(process, r"^words.py: in effect$")
        assert answers(process, ping, "two")
        # the server of tasks comes and goes with what takes them, and follows its address
        push = '[[routes]]\nsource = "push"\nhandler = "handlers:handle"\n'
        config.write_text(config.read_text() + push)
        says(process, r"^tasks: POST http://localhost/tasks/QUEUE by the socket \S+/var/tasks.sock$")
        config.write_text(config.read_text().replace("tasks.sock", "t.sock"))
        says(process, r"^tasks: POST http://localhost/tasks/QUEUE by the socket \S+/var/t.sock$")
        add = f"curl -sS --unix-socket {home}/t.sock http://localhost/tasks/default/work -d x"
        assert answers(process, add, "two")
        config.write_text(config.read_text().replace(push, ""))
        wait_for(lambda: not (home / "t.sock").exists(), "glassq-tasks to be stopped")
        # what a change lacked comes later, and nothing that is watched changes with it
        config.write_text(f'{config.read_text()}[sources.gitlab]\nsecrets_file = "{home}/gitlab-secret"\n')
        says(process, r"^glassq.toml changed but cannot be used; .*gitlab-secret")
        (home / "gitlab-secret").write_text("0123456789abcdef0123456789abcdef\n")
        says(process, r" ping gitlab$")
        handlers.write_text("def handle(:\n")
        says(process, r"^handlers.py changed but cannot be used; .*:\n(  .* SyntaxError: .*line 1\)\n)+")
        assert answers(process, ping, "two")
        more = '[sources.acme]\nkind = "hmac"\n[sources.slack]\nsecrets_file = "none"\n'
        config.write_text(config.read_text() + more)
        # a line for each mistake, without the file's whole path
        says(process, r"cannot be used; the previous version keeps running:\n  \[sources\.")
        config.write_text(config.read_text().replace(more, "").replace("beanstalkd.sock", "other.sock"))
        says(process, r"^handlers.py, glassq.toml changed but cannot be used; .*:\n  \[\[routes.* SyntaxError")
        handlers.write_text("def handle(delivery):\n    return 'three'\n")
        again = r"for another \[queue\] url, \[intake\] bind or \[metrics\] intake, start glassq dev again$"
        says(process, rf"^handlers.py, glassq.toml changed: {again}")
        metrics = f'[metrics]\nintake = "127.0.0.1:{free_port()}"\n'
        config.write_text(config.read_text().replace("other.sock", "beanstalkd.sock") + metrics)
        wait_for(lambda: len(re.findall(again, process.output(), re.MULTILINE)) == 2, "it to say so of the metrics")


def says(process: Process, pattern: str) -> None:
    wait_for(lambda: re.search(pattern, process.output(), re.MULTILINE), f"glassq dev to say {pattern}")


def answers(process: Process, ping: str, result: str) -> bool:
    """Whether the next ping is worked with this result: once a change is in effect, no old child takes any."""
    before = process.output().count(" done delivery=")
    paste(ping, Path.cwd())
    wait_for(lambda: worked(process, before + 1), "the ping to be worked")
    return re.findall(r'result="?(\w+)', process.output())[-1] == result


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    log = tmp_path / "dev.log"
    process = started(log, "--bind", f"127.0.0.1:{free_port()}")
    try:
        wait_for(lambda: READY in process.output(), "glassq dev to be ready")
        slow = "import time\n\n\ndef handle(delivery):\n    time.sleep(300)\n"
        (tmp_path / "var" / "handlers.py").write_text(slow)
        wait_for(lambda: "changed: reloading" in process.output(), "the change to be taken up")
        command = printed(process)[0]
        wait_for(lambda: at_work(tmp_path, command), "a ping to be worked on")
        process.send(signal.SIGINT)
        wait_for(lambda: "pool stops how=draining" in process.output(), "it to stop")
        process.send(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.end(signal.SIGKILL)
    assert not working_in(log.parent)


def at_work(home: Path, ping: str) -> bool:
    """Whether a ping is held by the slow handler; sends one more where the old one took the last."""
    paste(ping, home)
    return re.search(r'"reserved": [1-9]', told(home, "--json")) is not None


def told(home: Path, *options: str) -> str:
    """What `glassq status` says."""
    return forked.run(["--config", str(home / "var" / "glassq.toml"), "status", *options])[1]
