"""Handlers that are programs: real ones, run as a child of the pool runs them."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.bodies import DirectoryBodies, attached
from glassq.errors import Interrupted, Retry, SettingsError
from glassq.handlers.process import Tail
from glassq.handlers.program import program
from glassq.routes import Context
from glassq.settings import Settings, parse
from glassq.testing import work
from glassq.values import HandlerName
from tests.conftest import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.testing import Worked


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a program; returns the handler's name."""

    def write(text: str, shell: str = "#!/bin/sh\n") -> str:
        file = tmp_path / "run.sh"
        file.write_text(f"{shell}{text}\n")
        file.chmod(0o755)
        return f"exec:{file}"

    return write


@pytest.mark.parametrize(
    ("text", "state", "said", "detail"),
    [
        ("cat", "done", "the body", None),
        ("echo one; echo two", "done", "one\ntwo", None),
        ("exit 0", "done", "", None),
        ("echo fine; echo note >&2", "done", "fine", None),
        ("exit 75", "retrying", "run.sh exited with 75 (EX_TEMPFAIL)", {"exit": 75}),
        ("echo out; exit 1", "retrying", "run.sh exited with 1", {"exit": 1}),
        (
            "echo first >&2; echo the shop is shut >&2; exit 65",
            "retrying",
            "run.sh exited with 65 (EX_DATAERR): the shop is shut",
            {"exit": 65, "stderr": "first\nthe shop is shut"},
        ),
        (
            "echo password=opensesame123 >&2; exit 1",
            "retrying",
            "run.sh exited with 1: password=***",
            {"exit": 1, "stderr": "password=***"},
        ),
        ("kill -SEGV $$", "retrying", "run.sh was killed by SIGSEGV", {"exit": "SIGSEGV"}),
        ("kill -KILL $$", "retrying", "run.sh was killed by SIGKILL", {"exit": "SIGKILL"}),
        ("echo token=abcdefgh12345678", "done", "token=***", None),
        # what it leaves behind keeps the output open
        ("sleep 60 & echo $! > $0.pid; echo done", "done", "done", None),
        # it does not read the body
        ("exec <&-; sleep 0.1; echo unread", "done", "unread", None),
        ("printf '\\377\\376'", "done", "\\xff\\xfe", None),
    ],
)
def test_a_program_decides_by_its_exit_code(
    script: Callable[[str], str], tmp_path: Path, text: str, state: str, said: str, detail: dict[str, object] | None
) -> None:
    came = work(script(text), b"the body")
    assert (came.state, came.reason or came.recorded) == (state, said)
    assert (came.evidence and came.evidence.detail) == detail
    with suppress(FileNotFoundError):
        os.kill(int((tmp_path / "run.sh.pid").read_text()), 9)


def test_the_settings_say_what_exit_codes_mean_and_which_variables_it_gets(
    script: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script('echo "$ALLOWED$SECRET"; exit $(cat)')
    (tmp_path / "glassq.toml").write_text(
        '[[routes]]\nsource = "shop"\nhandler = "exec:./run.sh"\n[handlers."exec:./run.sh"]\n'
        'exit_codes = { 65 = "bury", 100 = "drop", 3 = "done" }\nenvironment = ["ALLOWED"]\n'
    )
    monkeypatch.setenv("ALLOWED", "allowed")
    monkeypatch.setenv("SECRET", "secret")
    for code, state in ((65, "buried"), (100, "dropped"), (3, "done"), (0, "done"), (4, "retrying")):
        came = work(None, str(code).encode(), source="shop", settings=tmp_path / "glassq.toml")
        assert came.state == state
        assert came.recorded == ("allowed" if state == "done" else "")


@pytest.mark.parametrize(
    ("command", "operator"),
    [
        ("/bin/cat a | wc -l", "|"),
        ("/bin/true && /bin/false", "&&"),
        ("/bin/date > /tmp/now", ">"),
        ("/bin/date >/tmp/now", ">/tmp/now"),
        ("/bin/date 2>&1", "2>&1"),
        ("/bin/cat < /tmp/now", "<"),
        ("/bin/sleep 1 &", "&"),
        ("/bin/sh -c 'cat | wc -l'", ""),
        ("/usr/bin/find . -exec rm {} ';'", ""),
        ("/usr/bin/find . -exec rm {} \\;", ""),
        ("/bin/echo a<b --x=>1 it\\'s", ""),
    ],
)
def test_what_only_a_shell_would_understand_is_refused(command: str, operator: str) -> None:
    if not operator:
        assert HandlerName(f"exec:{command}").command
        return
    with pytest.raises(ValueError, match=re.escape(f"no shell runs a program, so {operator} would be an argument")):
        HandlerName(f"exec:{command}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("exit_codes = { 0 = 'done' }", "1 to 255, each done or drop or retry or bury"),
        ("exit_codes = { 256 = 'done' }", "1 to 255"),
        ("exit_codes = { 65 = 'burry' }", "1 to 255"),
        ("exit_codes = { a = 'bury' }", "1 to 255"),
        ("exit_codes = 65", "1 to 255"),
        ("environment = 'PATH'", "names of variables"),
        ("environment = ['A=B']", "names of variables"),
        ("exit_code = { 65 = 'bury' }", "no key exit_code in its [handlers] section, but exit_codes or environment"),
    ],
)
def test_what_a_programs_section_cannot_mean_is_refused(options: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(f'[[routes]]\nsource = "shop"\nhandler = "exec:/bin/true"\n[handlers."exec:/bin/true"]\n{options}\n', "g")
    assert says in str(caught.value)


def test_a_large_body_that_nobody_reads_is_no_error(script: Callable[[str], str]) -> None:
    assert work(script("echo $GLASSQ_ID"), b"x" * 90_000).state == "done"
    assert work(script("wc -c"), b"x" * 90_000).recorded == "90000"


def test_a_stored_body_is_read_from_its_file(script: Callable[[str], str], tmp_path: Path) -> None:
    bodies = DirectoryBodies(tmp_path / "bodies")
    bodies.prepare()
    writer = bodies.begin("body-1")
    writer.write(b"large")
    delivery = envelope.new("shop", b"", {}, stored=writer.finish(), key="body-1")
    command = [script("cat; readlink /proc/$$/fd/0").removeprefix("exec:")]
    result = program(command, os.environ)(attached(delivery, bodies), Context(Settings()))
    assert result == f"large{tmp_path / 'bodies/live/body-1'}"


def test_the_environment_has_the_delivery_and_nothing_that_is_not_allowed(
    script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_POOL", "x")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    came = work(
        script("tr '\\0' '\\n' < /proc/$$/environ"),
        labels={"event": "push\nGLASSQ_ID=forged", "pull-request": "7\x00", "pull_request": "8", "größe": "é"},
        headers={"X-Shop": "a"},
        content_type="application/json",
        attempt=3,
    )
    pairs = dict(line.split("=", 1) for line in came.recorded.splitlines())
    at, seconds = pairs.pop("GLASSQ_RECEIVED"), pairs.pop("GLASSQ_SECONDS")
    assert pairs == {
        "PATH": os.environ["PATH"],
        "TZ": "Europe/Berlin",
        **{name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL") if name in os.environ},
        "GLASSQ_ID": came.delivery.id,
        "GLASSQ_SOURCE": "mirror",
        "GLASSQ_ATTEMPT": "3",
        "GLASSQ_CONTENT_TYPE": "application/json",
        "GLASSQ_LABEL_EVENT": "push GLASSQ_ID=forged",
        "GLASSQ_LABEL_PULL_REQUEST": "7 ",
        "GLASSQ_LABEL_GR_SSE": "é",
        "GLASSQ_HEADER_X_SHOP": "a",
    }
    assert (at, seconds) == (came.delivery.received.isoformat(), "570")


def test_it_has_a_session_and_only_its_streams(script: Callable[[str], str]) -> None:
    with Path(os.devnull).open() as file:
        os.set_inheritable(file.fileno(), True)
        came = work(script('ls /proc/$$/fd; cut -d" " -f6 /proc/$$/stat; echo $$'))
    *descriptors, session, pid = came.recorded.split()
    # sh has its script open
    assert set(descriptors) <= {"0", "1", "2", "10", "255"}
    assert session == pid


def test_of_a_large_output_the_end_is_kept(script: Callable[[str], str]) -> None:
    came = work(script("head -c 50000000 /dev/zero | tr '\\0' x; echo; echo the end"))
    assert (came.state, came.recorded) == ("done", "... the end")
    came = work(script("head -c 50000000 /dev/zero >&2; exit 9"))
    assert came.evidence is not None
    assert len(came.evidence.detail["stderr"]) == 2000


def overrun(name: str, deadline: float = 0.5) -> Worked:
    return work(name, deadline=deadline)


def test_at_the_deadline_it_may_say_its_last_words(script: Callable[[str], str], tmp_path: Path) -> None:
    came = overrun(script("trap 'echo interrupted >&2; exit 3' TERM; sleep 60 & echo $! > $0.pid; wait"))
    assert (came.state, came.reason) == ("retrying", "the handler overran its deadline")
    assert came.evidence is not None
    assert (came.evidence.error, came.evidence.traceback) == ("DeadlineExceeded", "")
    assert came.evidence.detail == {"exit": 3, "stderr": "interrupted"}
    wait_for(lambda: not alive(tmp_path / "run.sh.pid"), "the group to end")


def test_a_program_that_ignores_the_signal_is_killed(script: Callable[[str], str], tmp_path: Path) -> None:
    came = overrun(script("trap '' TERM; echo $$ > $0.pid; while :; do sleep 1; done"))
    assert came.evidence is not None
    assert came.evidence.detail == {"exit": "SIGKILL"}
    assert not alive(tmp_path / "run.sh.pid")


def test_output_without_end_ends_at_the_deadline(script: Callable[[str], str]) -> None:
    came = overrun(script("exec yes"))
    assert came.evidence is not None
    assert (came.state, came.evidence.detail) == ("retrying", {"exit": "SIGTERM"})


def test_an_interrupt_that_is_pending_ends_it(script: Callable[[str], str]) -> None:
    started = time.monotonic()
    context = Context(Settings(), pending=lambda: Interrupted if time.monotonic() > started + 0.3 else None)
    with pytest.raises(Interrupted):
        program([script("sleep 60").removeprefix("exec:")], os.environ)(envelope.new("shop", b"", {}), context)


def test_in_a_lane_it_ends_with_all_that_it_started_and_with_nothing_else(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    command = [script("setsid sh -c 'echo $$ >> $0.pids; exec sleep 60' $0; wait").removeprefix("exec:")]
    handler, ends = program(command, os.environ), threading.Event()
    deliveries = [envelope.new("shop", b"", {}) for _ in range(2)]
    contexts = [Context(Settings()).for_thread(lambda _stop: nullcontext()) for _ in range(2)]
    contexts[0].pending = lambda: Interrupted if ends.is_set() else None
    contexts[1].pending = lambda: Interrupted if over.is_set() else None
    over, came = threading.Event(), list[object]()

    def work_one(number: int) -> None:
        try:
            handler(deliveries[number], contexts[number])
        except Interrupted as error:
            came.append((number, error.detail))

    threads = [threading.Thread(target=work_one, args=(number,)) for number in range(2)]
    pids: list[str] = []

    def both_run() -> bool:
        with suppress(FileNotFoundError):
            pids[:] = (tmp_path / "run.sh.pids").read_text().split()
        return len(pids) == 2

    for number, thread in enumerate(threads):
        thread.start()
        wait_for(lambda number=number: both_run() or len(pids) > number, "it to run")  # type: ignore[misc]
    ends.set()
    threads[0].join()
    wait_for(lambda: not lives(pids[0]), "the first to end")
    assert lives(pids[1])
    over.set()
    threads[1].join()
    wait_for(lambda: not lives(pids[1]), "the second to end")
    assert came == [(0, {"exit": "SIGTERM"}), (1, {"exit": "SIGTERM"})]


def test_a_program_that_has_gone_is_tried_again(script: Callable[[str], str], tmp_path: Path) -> None:
    handler = program([script("exit 0").removeprefix("exec:")], os.environ)
    (tmp_path / "run.sh").unlink()
    came = work(handler)
    assert (came.state, came.reason) == (
        "retrying",
        f"{tmp_path}/run.sh cannot be started: No such file or directory",
    )


def test_a_script_without_its_first_line_says_what_it_lacks(script: Callable[..., str]) -> None:
    came = work(script("exit 0", shell=""))
    assert came.reason.endswith(
        "cannot be started: it is no program of this machine, or a script whose first line is not #! and an interpreter"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("exec:/nowhere/at/all", "there is no program /nowhere/at/all"),
        ("exec:/etc", "there is no program /etc"),
        ("exec:./plain.txt", "plain.txt is not executable"),
    ],
)
def test_a_program_that_cannot_be_run_is_refused_at_the_start(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "plain.txt").touch()
    settings = msgspec.structs.replace(Settings(), file=str(tmp_path / "glassq.toml"))
    with pytest.raises(SettingsError, match=r"\[\[routes\]\] \(1st\) handler = ") as caught:
        work(name, settings=settings)
    assert says in str(caught.value)


def test_a_program_is_found_beside_the_settings(script: Callable[[str], str], tmp_path: Path) -> None:
    script("echo $1, $2")
    settings = msgspec.structs.replace(Settings(), file=str(tmp_path / "glassq.toml"))
    assert work("exec:./run.sh 'a b' \"c;d\"", settings=settings).recorded == "a b, c;d"


@pytest.mark.parametrize(
    "text", ["exec:", "exec:true", "exec:/bin/", 'exec:/bin/true "', "exec:/bin/true\n", "exec:  "]
)
def test_what_is_no_command_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'expected "exec:/PATH ARGUMENTS", or "exec:./PATH'):
        HandlerName(text)


def test_a_tail_keeps_the_end_from_the_start_of_a_line() -> None:
    tail = Tail(12)
    for data in (b"first\n", b"second\n", b"third\n"):
        tail.write(data)
    assert (tail.text(), tail.size) == ("third", 19)
    tail = Tail(3)
    tail.write("aaé€".encode())
    assert tail.text() == "€"


def alive(file: Path) -> bool:
    return lives(file.read_text())


def lives(pid: str) -> bool:
    try:
        state = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_a_verdict_is_what_the_pool_gets(script: Callable[[str], str]) -> None:
    came = work(script("exit 1"))
    assert type(came.error) is Retry


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"id": "o-1", "cents": 990}', "invoice for o-1, by attempt 1 of "),
        (b"{}", "run.sh exited with 65 (EX_DATAERR): an order without an id"),
    ],
)
def test_the_program_of_the_documents_works(script: Callable[..., str], body: bytes, said: str) -> None:
    page = (ROOT / "docs" / "other-handlers.md").read_text("utf-8")
    (text,) = re.findall(r"```sh\n(#!/bin/sh\n# /usr/local/bin/invoice.+?)```", page, re.DOTALL)
    came = work(script(text, shell=""), body)
    assert (came.reason or came.recorded).startswith(said)
