"""What the log says of requests for paths and methods that are not here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_for
from tests.intake.wire import TOKEN, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Beanstalkd
    from tests.intake.conftest import Web


def told(web: Web, line: str) -> str:
    """What the log says of a request with this request line."""
    known = len(web.log())
    with web.wire() as wire:
        wire.ask(request(b"", line=f"{line} HTTP/1.1"), headless=line.startswith("HEAD"))
    wait_for(lambda: "\n" in web.log()[known:], "a line about the request")
    said = web.log()[known:]
    assert said.count("\n") == 1
    return said.partition(": ")[2].rstrip()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("GET /nowhere", "refused status=404 method=GET path=/nowhere sender=127.0.0.1"),
        ("POST /", "refused status=404 method=POST path=/ sender=127.0.0.1"),
        ("PUT /healthz", "refused status=405 method=PUT path=/healthz sender=127.0.0.1"),
        ("GET /a?b=secret", "refused status=404 method=GET path=/a sender=127.0.0.1"),
        ("GET /%0d%0aforged", "refused status=404 method=GET path=/%0d%0aforged sender=127.0.0.1"),
        ("GET /%ff%00", "refused status=404 method=GET path=/%ff%00 sender=127.0.0.1"),
        ('GET /"quoted"=', "refused status=404 method=GET path=\"/'quoted'=\" sender=127.0.0.1"),
        ("GET /x" + "y." * 1000, f'refused status=404 method=GET path="/x{"y." * 99}…" sender=127.0.0.1'),
        ("GET /key/0123456789abcdef0123", "refused status=404 method=GET path=/key/0123*** sender=127.0.0.1"),
        (f"POST /services/{TOKEN}", "refused status=404 method=POST path=/services/a-ve*** sender=127.0.0.1"),
        ("GET /a;token=abc", 'refused status=404 method=GET path="/a;token=***" sender=127.0.0.1'),
    ],
)
def test_the_line_says_what_was_called(web: Web, line: str, words: str) -> None:
    assert told(web, line) == words


@pytest.mark.parametrize(
    "line",
    [
        "POST /hooks/mirror/",
        "POST /hook/mirror",
        "POST /hooks/Mirror",
        "POST //hooks//mirror",
        "POST /mirror",
        "POST /hooks/miror",
        "POST /hooks/mirror%20",
        "POST /hooks/mirrors",
        "GET /hooks/mirror?a=b",
        "PUT /hooks/mirror",
        "POST /hooks",
        "POST /hooks/zzzz",
    ],
)
def test_for_what_is_nearly_right_the_right_one_is_named(web: Web, line: str) -> None:
    said = told(web, line)
    assert said.endswith('sender=127.0.0.1 hint="pings go to POST /hooks/mirror"')
    assert "?" not in said


@pytest.mark.parametrize("line", ["GET /", "POST /wp-login.php", "GET /.env", "POST /healthz", "OPTIONS *"])
def test_what_is_like_no_path_of_ours_gets_no_hint(web: Web, line: str) -> None:
    assert "hint" not in told(web, line)


def test_a_scanner_does_not_flood_the_log(beanstalkd: Beanstalkd, start_web: Callable[..., Web]) -> None:
    web = start_web(beanstalkd.url)
    scan = b"".join(request(b"", line=f"GET /{number}.php HTTP/1.1") for number in range(100))
    with web.wire() as wire:
        for _ in range(20):
            wire.send(scan)
            assert [wire.answer().status for _ in range(100)] == [404] * 100
    lines = web.log().count(" path=/")
    assert 300 <= lines < 600
    # a line comes again, and says how many had none
    wait_for(lambda: web.ask(request(b"", line="GET /late HTTP/1.1")) and "/late" in web.log(), "a line")
    assert sum(map(int, re.findall(r"left_out=(\d+)", web.log()))) + web.log().count(" path=/") >= 2000
