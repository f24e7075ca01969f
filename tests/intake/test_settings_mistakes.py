"""What glassq-web says to an operator whose settings it cannot use: one line, and an exit code that systemd knows."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Process
from tests.intake.wire import TOKEN, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.intake.conftest import Web

GOOD = '[sources.mirror]\nverify_tokens_file = "{tokens}"\n'
EX_TEMPFAIL = 75
EX_CONFIG = 78


def start(
    directory: Path, text: str | None, *, tokens: str | None = TOKEN, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """The exit code of glassq-web on this glassq.toml, and all it said; every {tokens} is the token file."""
    file = directory / "glassq.toml"
    if tokens is not None:
        (directory / "tokens").write_text(tokens)
    if text is not None:
        # where all else is right, the spool is made
        text = text.replace("[intake]\n", '[intake]\njournal = "{dir}/spool"\n')
        file.write_text(text.replace("{tokens}", str(directory / "tokens")).replace("{dir}", str(directory)))
    process = Process(["--config", str(file)], directory / "web.log", env, forks="glassq-web")
    try:
        return process.wait(), process.output()
    finally:
        process.end()


def assert_one_line(said: str, *expected: str) -> None:
    assert said.count("\n") == 1, said
    assert said.startswith("glassq-web: ")
    assert "Traceback" not in said
    assert TOKEN not in said
    for part in expected:
        assert part in said


# in every section that the intake does not read
OF_THE_POOL = """[worker]
proceses = 4
[push]
queue = 1
[glass]
on_delete = "maybe"
[storage]
url = "ftp://x"
[ledger]
retention = 30
[[routes]]
source = "nobody"
handler = "m:f"
"""


def test_mistakes_that_concern_the_pool_alone_are_told_and_keep_no_ping_out(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, queue=OF_THE_POOL)
    assert web.ask(request()).status == 200
    for part in ("did you mean processes?", "[push] queue", "on_delete", "ftp://x", "retention = 30", "nobody"):
        assert part in web.log()


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        (None, TOKEN, ["glassq.toml", "cannot be read", "No such file"]),
        ("[intake\n", TOKEN, ["glassq.toml", "is not TOML", "line 1", ": [intake"]),
        (
            GOOD + "[intake]\nworker = 2\n",
            TOKEN,
            ["glassq.toml", "unknown key [intake] worker", "did you mean workers?"],
        ),
        (
            GOOD + "[intake]\nworkers = 0\n",
            TOKEN,
            ["[intake] workers = 0", "expected a whole number, at least 1 (line 5)"],
        ),
        (GOOD + '[intake]\nbind = "8080"\n', TOKEN, ['[intake] bind = "8080"', 'expected "HOST:PORT"']),
        (GOOD + '[intake]\nmax_body = "26MiB"\n', TOKEN, ['[intake] max_body = "26MiB"', "1B to 25MiB"]),
        (GOOD + '[intake]\nrequest_timeout = "10"\n', TOKEN, ['request_timeout = "10"', 'duration such as "500ms"']),
        (GOOD + '[queue]\nurl = "http://x"\n', TOKEN, ['[queue] url = "http://x"', "beanstalk://HOST:PORT"]),
        ("[sources.mirror]\n", TOKEN, ["missing key [sources.mirror] verify_tokens_file"]),
        (GOOD, None, ["[sources.mirror] verify_tokens_file", "/tokens", "cannot be read: No such file"]),
        (GOOD, "# nothing but a comment\n\n", ["[sources.mirror] verify_tokens_file", "is empty"]),
        (GOOD, "", ["[sources.mirror] verify_tokens_file", "is empty"]),
        ("", TOKEN, ["no source of pings", "[sources.mirror]"]),
        (GOOD + '[intake]\nbind = "unix:{dir}/no/web.sock"\n', TOKEN, ["[intake] bind", "No such file"]),
        (
            GOOD + '[intake]\nbind = "192.0.2.1:8080"\n',
            TOKEN,
            ["[intake] bind", "192.0.2.1:8080", "cannot be listened on"],
        ),
    ],
)
def test_settings_that_cannot_be_used_are_named_in_one_line_and_exit_78(
    tmp_path: Path, text: str | None, tokens: str | None, expected: list[str]
) -> None:
    code, said = start(tmp_path, text, tokens=tokens)
    assert_one_line(said, *expected)
    assert code == EX_CONFIG


def test_a_token_file_as_an_editor_on_windows_saves_it_takes_pings(
    beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> None:
    web = start_web(beanstalkd.url, tokens=f"\ufeff{TOKEN} \r\n")
    assert web.ask(request()).status == 200


def test_an_address_in_use_is_named_in_one_line_and_may_be_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        code, said = start(tmp_path, GOOD + f'[intake]\nbind = "{bind}"\n')
    assert_one_line(said, "glassq.toml", "[intake] bind", bind, "Address already in use")
    assert code == EX_TEMPFAIL


def test_a_unix_socket_that_another_serves_is_not_taken_from_it(
    beanstalkd: Beanstalkd, tmp_path: Path, start_web: Callable[..., Web]
) -> None:
    path = tmp_path / "web.sock"
    first = start_web(beanstalkd.url, at=str(path), bind=f"unix:{path}")
    other = tmp_path / "other"
    other.mkdir()
    code, said = start(other, GOOD + f'[intake]\nbind = "unix:{path}"\n')
    assert_one_line(said, str(path), "Address already in use")
    assert code == EX_TEMPFAIL
    assert first.healthy()


def test_a_unix_socket_that_a_dead_one_left_behind_is_no_hindrance(
    beanstalkd: Beanstalkd, tmp_path: Path, start_web: Callable[..., Web]
) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    assert start_web(beanstalkd.url, at=str(path), bind=f"unix:{path}").healthy()


@pytest.mark.parametrize(
    "text", ["[intake\n", "", GOOD + '[intake]\nbind = "192.0.2.1:8080"\n'], ids=["no TOML", "no source", "address"]
)
def test_systemctl_status_shows_why_it_does_not_start(tmp_path: Path, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(5)
        code, said = start(tmp_path, text, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        told = notified.recv(4096).decode()
    assert code == EX_CONFIG
    assert told == f"STATUS={said.removeprefix('glassq-web: ').strip()}"


def test_systemctl_status_says_what_is_wrong_with_gunicorns_file(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("1 / 0\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(5)
        code, _ = start(tmp_path, GOOD + "[intake]\n", env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert "gunicorn.conf.py: cannot be used: ZeroDivisionError" in notified.recv(4096).decode()
    assert code not in (0, None)


def test_in_the_journal_no_line_says_again_when_and_by_which_process_it_was_written(
    start_web: Callable[..., Web], beanstalkd: Beanstalkd
) -> None:
    # its own standard error is what systemd calls the journal
    under = ("sh", "-c", 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"', "sh")
    web = start_web(beanstalkd.url, under=under, workers=2)
    pids = [web.process.pid, *web.workers()]
    web.process.end()
    written = [line for line in web.log().splitlines() if "gunicorn" in line]
    assert any(line == "<6>info gunicorn.error: Booting worker" for line in written)
    for line in web.log().splitlines():
        assert re.match(r"<[3-7]>(debug|info|warning|error|critical) [\w.]+: ", line), line
        said = {int(number) for number in re.findall(r"\b\d+\b", line)} & set(pids)
        # the parent may name a worker
        assert not said or "Worker (pid" in line, line
