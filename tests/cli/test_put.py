"""`glassq put`."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from glassq.delivery import Delivery, decode
from glassq.settings import load
from glassq.sources.signer import open_signer
from tests.cli.conftest import NASTY
from tests.conftest import program, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.queues.beanstalk.protocol import Job
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

TOKEN = "the-verify-token"
PING = f'{{"collection":"timeline","itemId":"i1","operation":"INSERT","userToken":"u1","verifyToken":"{TOKEN}"}}'
ROUTE = '[[routes]]\nsource = "mirror"\ncollection = "timeline"\nhandler = "somebody.elses:handler"\n'


@pytest.fixture
def mirror(cli: Cli) -> Cli:
    """With the source mirror and a route for it."""
    tokens = cli.directory / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    cli.configure(f'[sources.mirror]\nverify_tokens_file = "{tokens}"\n{ROUTE}')
    return cli


def only(queue: Queue, tube: str | None = None) -> tuple[Job, Delivery]:
    job = queue.peek_first("ready", tube) or queue.peek_first("delayed", tube)
    assert job is not None
    return job, decode(job.body)


def a_file(directory: Path, content: str | bytes) -> str:
    file = directory / "ping.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


@pytest.mark.parametrize("way", ["file", "standard input", "-"])
def test_a_ping_of_a_source_becomes_the_delivery_that_intake_would_make(queue: Queue, mirror: Cli, way: str) -> None:
    if way == "file":
        said = mirror("put", a_file(mirror.directory, PING), "--source", "mirror")
    else:
        said = mirror("put", *([way] if way == "-" else []), "--source", "mirror", answer=PING)
    assert (said.code, said.err) == (0, "")
    _, told = only(queue)
    assert said.out == f"{told.id}\n"
    assert (told.source, told.body, told.attempt) == ("mirror", PING.encode(), 1)
    assert told.labels == {"collection": "timeline", "operation": "INSERT"}


def test_bytes_that_are_no_text_arrive_untouched(queue: Queue, cli: Cli) -> None:
    body = bytes(range(256))
    assert cli("put", a_file(cli.directory, body), "--source", "cron").code == 0
    assert only(queue)[1].body == body


def test_without_a_valid_token_it_is_refused_in_words_that_hold_no_token(queue: Queue, mirror: Cli) -> None:
    said = mirror("put", "--source", "mirror", answer=PING.replace(TOKEN, "wrong"))
    assert (said.code, said.out) == (1, "")
    assert "mirror does not take it: The verifyToken is not one of this subscription's. (--no-check" in said.err
    assert TOKEN not in said.err
    assert queue.stats_tube().ready == 0
    assert "The body must be one JSON object" in mirror("put", "--source", "mirror", answer="{").err


@pytest.fixture
def github(cli: Cli) -> Cli:
    """With the source github."""
    (cli.directory / "secret").write_text("s3cret\n")
    cli.configure(f'[sources.github]\nsecrets_file = "{cli.directory}/secret"\n')
    return cli


def test_a_saved_request_is_checked_as_intake_does_and_kept_as_intake_would(queue: Queue, github: Cli) -> None:
    signer = open_signer(load(str(github.file), {}), "github")
    ping = signer.sign(signer.sample("issues", 0.0), 0.0)
    head = [f"POST {ping.target} HTTP/1.1", *(f"{name}: {value}" for name, value in ping.headers.items()), "", ""]
    file = a_file(github.directory, "\r\n".join(head).encode() + ping.body)
    assert github("put", file, "--source", "github").code == 0
    _, told = only(queue)
    assert (told.body, told.labels["event"], told.content_type) == (ping.body, "issues", "application/json")
    assert set(told.headers) == {"x-github-event", "x-github-delivery"}
    changed = a_file(github.directory, "\r\n".join(head).encode() + ping.body.replace(b"loom", b"moon"))
    said = github("put", changed, "--source", "github")
    assert (said.code, said.out) == (1, "")
    assert "github does not take it: The signature is not the one of this request" in said.err


def test_a_body_without_its_proof_is_told_how_to_come_in(queue: Queue, github: Cli) -> None:
    said = github("put", "--source", "github", answer="{}")
    assert (said.code, said.out) == (1, "")
    assert "put a whole saved request, or sign it anew with `glassq" in said.err
    assert "ping github FILE`" in said.err
    assert queue.stats_tube().ready == 0


def test_unchecked_it_is_taken_with_the_labels_that_are_given(queue: Queue, mirror: Cli) -> None:
    labels = ("--label", "collection=timeline", "--label", "equation=a=b")
    said = mirror("put", "--source", "mirror", "--no-check", *labels, answer="{")
    assert (said.code, said.err) == (0, "")
    assert only(queue)[1].labels == {"collection": "timeline", "equation": "a=b"}


def test_labels_that_the_source_makes_cannot_be_given(mirror: Cli) -> None:
    said = mirror("put", "--source", "mirror", "--label", "collection=locations", answer=PING)
    assert said.code == 2
    assert "--label goes with --no-check" in said.err


def test_a_delivery_that_no_route_takes_is_put_with_a_warning(queue: Queue, mirror: Cli) -> None:
    unknown = f"there is no [sources.miror] in {mirror.file}; did you mean mirror?; glassq-worker tries it again for 1h"
    drops = f"no route takes it: glassq-worker drops it ([[routes]] in {mirror.file})"
    for arguments, says in (
        (["--source", "miror"], unknown),
        (["--source", "mirror", "--no-check", "--label", "collection=settings"], drops),
    ):
        said = mirror("put", *arguments, answer="x")
        assert said.code == 0
        assert says in said.err
    assert queue.stats_tube().ready == 2


def test_it_waits_for_its_delay_in_the_tube_that_is_named(queue: Queue, mirror: Cli) -> None:
    said = mirror("put", "--source", "mirror", "--tube", "other", "--delay", "10m", "--json", answer=PING)
    job, told = only(queue, "other")
    assert said.json == {
        "delivery": told.id, "job": str(job.id), "source": "mirror", "tube": "other", "delay": 600, "bytes": len(PING),
        "labels": {"collection": "timeline", "operation": "INSERT"}, "dry_run": False,
    }  # fmt: skip
    assert "no pool with these settings works tube other" in said.err
    stats = queue.stats_job(job.id)
    assert (stats.state, stats.delay) == ("delayed", 600)


def test_a_dry_run_checks_and_puts_nothing(queue: Queue, mirror: Cli) -> None:
    said = mirror("put", "--source", "mirror", "--dry-run", "--delay", "90s", answer=PING)
    assert said.code == 0
    assert said.out == (
        f"{len(PING)} bytes from mirror would be put into tube glassq, ready after 1m 30s; "
        "labels: collection=timeline operation=INSERT\n"
    )
    asked: dict[str, Any] = mirror("put", "--source", "mirror", "--dry-run", "--json", answer=PING).json
    assert (asked["delivery"], asked["job"], asked["dry_run"]) == (None, None, True)
    assert mirror("put", "--source", "mirror", "--dry-run", answer="{}").code == 1
    assert queue.stats_tube().ready == queue.stats_tube().delayed == 0


def test_the_largest_body_is_that_of_intake(queue: Queue, cli: Cli) -> None:
    cli.configure('[intake]\nmax_body = "1KiB"\n')
    assert cli("put", "--source", "cron", answer="x" * 1024).code == 0
    said = cli("put", "--source", "cron", answer="x" * 1025)
    assert (said.code, queue.stats_tube().ready) == (1, 1)
    assert "a body is at most 1KiB ([intake] max_body)" in said.err


def test_a_file_without_an_end_is_not_read_to_its_end(cli: Cli) -> None:
    said = cli("put", "/dev/zero", "--source", "cron")
    assert (said.code, "at most" in said.err) == (1, True)


@pytest.mark.parametrize(
    ("file", "why"), [("nowhere", "No such file"), (".", "Is a directory"), ("/dev/null", "the body is empty")]
)
def test_what_cannot_be_read_is_said(cli: Cli, file: str, why: str) -> None:
    said = cli("put", file, "--source", "cron")
    assert (said.code, said.out) == (1, "")
    assert why in said.err


def test_a_closed_standard_input_is_said(cli: Cli) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *program("glassq"), "--config", str(cli.file), "put", "--source", "cron"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "glassq: standard input is closed: name a file\n")


def test_at_a_terminal_it_says_that_it_waits_for_what_is_typed(queue: Queue, cli: Cli) -> None:
    said = cli.at_terminal("put", "--source", "cron", answer="typed\n\x04")
    assert (said.code, only(queue)[1].body) == (0, b"typed\n")
    assert "type the body, then press Ctrl-D" in said.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--source", "push"], "taskqueue.add("),
        (["--source", NASTY], "expected a name"),
        (["--source", "Mirror"], "expected a name"),
        (["--source", ""], "expected a name"),
        (["--source", "cron", "--label", "nothing"], "expected KEY=VALUE"),
        (["--source", "cron", "--label", "=value"], "expected KEY=VALUE"),
        (["--source", "cron", "--label", f"key={NASTY}"], "expected KEY=VALUE"),
        (["--source", "cron", "--label", "key=" + "x" * 600], "expected KEY=VALUE"),
        (["--source", "cron", "--label", "key=1", "--label", "key=2"], "twice"),
        (["--source", "cron", "--tube", "a b"], "expected a tube name"),
        (["--source", "cron", "--delay", "tomorrow"], "expected a duration"),
        (["--source", "cron", "--delay", "50000d"], "expected at most"),
        ([], "--source"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(offline: Cli, arguments: list[str], why: str) -> None:
    said = offline("put", *arguments, answer="x")
    assert (said.code, said.out) == (2, "")
    assert why in said.err
    assert "\x1b" not in said.err


def test_a_queue_that_writes_nothing_to_disk_is_refused(beanstalkd: Beanstalkd, cli: Cli) -> None:
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    said = cli("put", "--source", "cron", answer="x")
    assert (said.code, said.out) == (75, "")
    assert "writes nothing to disk" in said.err


def test_a_draining_queue_is_exit_75_and_an_absent_one_exit_69(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    assert cli("put", "--source", "cron", answer="x").code == 75
    beanstalkd.stop()
    said = cli("put", "--source", "cron", answer="x")
    assert (said.code, said.out) == (69, "")
    assert "perhaps it was put all the same" not in said.err
